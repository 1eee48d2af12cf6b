"""The functions that PTZJEPA has of its own, with what the probes would say put in their place."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

import pytest

from worker.model.detail import Detail
from worker.model.measurement import Measurement, Outcome
from worker.model.options import ThroughputOptions
from worker.model.plan import TargetNode
from worker.monitor import (
    activity,
    check_throughput,
    log_network_metrics,
    measure_latency,
    network_stats,
    process,
)
from worker.probes import ping
from worker.probes.iperf3 import client, tool
from worker.probes.iperf3.record import Ends

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
PTZJEPA_FIELDS = ["timestamp", "host", "latency_ms", "packet_loss_pct", "throughput_mbps"]


def result(probe: str, target: str, outcome: Outcome = Outcome.OK, **numbers: Any) -> Measurement:
    return Measurement(
        run="", probe=probe, source="", target=target, address="10.0.0.1", started_at=AT,
        outcome=outcome, error="" if outcome is Outcome.OK else "why not", **numbers,
    )  # fmt: skip


class Probes:
    """What was asked, and answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pinged: list[list[str]] = []
        self.tested: list[tuple[Ends, ThroughputOptions]] = []
        self.throughput = Outcome.OK
        monkeypatch.setattr(ping, "measure", self.ping)
        answer = [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", ("10.0.0.1", 0))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answer)
        monkeypatch.setattr(client, "measure", self.iperf3)
        monkeypatch.setattr(tool, "find_iperf3", lambda: tool.NOT_THERE)

    def ping(
        self, _run: str, _source: str, targets: Sequence[TargetNode], *_rest: object
    ) -> Iterator[Measurement]:
        self.pinged.append([target.address for target in targets])
        for target in targets:
            yield result(
                "ping",
                target.name,
                latency_ms=1.5,
                packet_loss_pct=0.0,
                detail=Detail(more={"sent": 10}),
            )

    def iperf3(self, ends: Ends, options: ThroughputOptions, **_rest: object) -> list[Measurement]:
        self.tested.append((ends, options))
        mbps = 94.0 if self.throughput is Outcome.OK else None
        detail = Detail(more={"retransmits": 3})
        return [
            result(
                "throughput", ends.far.name, self.throughput, throughput_mbps=mbps, detail=detail
            )
        ]


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> Probes:
    return Probes(monkeypatch)


def recorded() -> list[Measurement]:
    return [entry.measurement for entry in process.recorder()._for_csv]


def test_one_row_has_latency_loss_and_throughput(probes: Probes) -> None:
    with activity("train"):
        metrics = log_network_metrics("hub")
    assert list(metrics) == PTZJEPA_FIELDS
    assert metrics == {
        "timestamp": "2026-01-02T03:04:05.000Z",
        "host": "hub",
        "latency_ms": 1.5,
        "packet_loss_pct": 0.0,
        "throughput_mbps": 94.0,
    }
    assert network_stats["hub"][-1] == metrics
    (one,) = recorded()
    assert (one.probe, one.source, one.target) == ("network", "cam-7", "hub")
    assert one.detail.more == {
        "sent": 10, "retransmits": 3, "throughput_outcome": "ok", "throughput_error": "",
        "activity": "train",
    }  # fmt: skip


def test_single_questions_give_numbers_and_record_nothing(probes: Probes) -> None:
    assert measure_latency("hub", count=5) == 1.5
    assert check_throughput("hub", duration=3, size_mb=2) == 94.0
    ((ends, options),) = probes.tested
    assert (ends.far.address, ends.port) == ("10.0.0.1", 5201)
    assert (options.duration_s, options.bytes_limit) == (3, 2_000_000)
    assert recorded() == []


def test_port_of_ssh_is_told_once_and_not_used(
    probes: Probes, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        check_throughput("hub", port=22)
    check_throughput("hub", port=5301)
    assert [ends.port for ends, _ in probes.tested] == [5201, 5201, 5201, 5301]
    assert caplog.text.count("port 22 is ssh's") == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: check_throughput("-s"),
        lambda: check_throughput("hub", port=0),
        lambda: check_throughput("hub", port="22"),  # type: ignore[arg-type]
        lambda: check_throughput("hub", duration=-1),
        lambda: check_throughput("hub", size_mb=0),
        lambda: measure_latency("-c"),
        lambda: measure_latency("hub", count=0),
        lambda: measure_latency(None),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_none_and_reaches_no_tool(
    probes: Probes, call: Callable[[], float | None]
) -> None:
    assert call() is None
    assert probes.tested == []
    assert [host for hosts in probes.pinged for host in hosts if host != "10.0.0.1"] == []


def test_a_bad_host_has_a_row_that_says_why(probes: Probes) -> None:
    metrics = log_network_metrics("-oops\n")
    assert [metrics[name] for name in PTZJEPA_FIELDS[2:]] == [None, None, None]
    (one,) = recorded()
    assert (one.outcome, one.target) == (Outcome.UNRESOLVED, "-oops")
    assert "must be" in one.error


def test_no_iperf3_is_told_once_and_the_rest_is_there(
    probes: Probes, caplog: pytest.LogCaptureFixture
) -> None:
    probes.throughput = Outcome.TOOL_MISSING
    for _ in range(3):
        metrics = log_network_metrics("hub")
    assert (metrics["latency_ms"], metrics["throughput_mbps"]) == (1.5, None)
    assert recorded()[0].outcome is Outcome.OK
    assert recorded()[0].detail.more["throughput_outcome"] == "tool_missing"
    assert caplog.text.count("throughput to hub") == 1


def test_a_probe_that_fails_is_an_empty_answer(
    probes: Probes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> Iterator[Measurement]:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(ping, "measure", broken)
    assert measure_latency("hub") is None
    assert list(log_network_metrics("hub").values())[2:] == [None, None, None]
