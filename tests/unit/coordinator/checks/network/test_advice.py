"""Advice between two nodes: for every outcome, and for causes that take long to provoke."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from samples import transfer_statistics

from coordinator.checks.network.advice import Way, for_handshakes, for_ping, for_test
from worker.model.detail import Detail, Interval
from worker.model.measurement import Measurement, Outcome
from worker.wire.node_record import Node

AT = datetime(2026, 1, 2, tzinfo=timezone.utc)
OK = "ok"


def node(name: str, address: str, *, accepts: bool = True) -> Node:
    return Node(
        name=name, address=address, labels={}, version="1", icmp="raw", iperf3="3.12",
        accepts=accepts, links={}, bytes_per_day=None, clock_offset_ms=None, seen_s=1.0,
    )  # fmt: skip


def found(probe: str, outcome: str, error: str = "", **detail: Any) -> Measurement:
    return Measurement(
        run="r1", probe=probe, source="a", target="b", address="10.0.0.2", started_at=AT,
        outcome=Outcome(outcome), error=error, packet_loss_pct=detail.pop("loss_pct", None),
        detail=transfer_statistics(**detail) if detail else Detail(),
    )  # fmt: skip


def way(ping: str = OK, tcp: str = OK, test: str = OK, **of_test: Any) -> Way:
    return Way(
        source=node("a", "10.0.0.1"),
        target=node("b", "10.0.0.2"),
        ping=found("ping", ping),
        handshakes={5201: found("tcp", tcp), 5216: found("tcp", tcp)},
        test=found("throughput", test, **of_test),
    )


@pytest.mark.parametrize("outcome", [one.value for one in Outcome if one is not Outcome.OK])
def test_every_outcome_has_an_advice_and_only_the_way_itself_opens_ports(outcome: str) -> None:
    failed = way(outcome, outcome, outcome, error="a: it says so; do this")
    for advice in (for_ping(failed), for_handshakes(failed), for_test(failed)):
        assert advice
    passes = way(OK, outcome, outcome, error="it says so", test_s=1.0)
    opens = {"ufw" in for_handshakes(passes), "ufw" in for_test(passes)}
    assert opens == {outcome in ("no_reply", "timeout", "refused", "unreachable")}


@pytest.mark.parametrize(
    ("error", "detail", "advice"),
    [
        # The responder was busy, or its worker is dead: nothing ever tried the ports.
        ("the responder of b did not answer within 8 s", {}, "on b: ptzmesh doctor, and the log"),
        ("Redis was away: Timeout reading from socket", {}, "on b: ptzmesh doctor, and the log"),
        # It connected: the ports are open.
        (
            "the test had not ended after 14.5 s",
            {"test_s": 14.5, "intervals": (Interval(0.0, 1.0, 8.0, 0, False),)},
            "it connected and broke off",
        ),
        ("unable to connect to server: Connection timed out", {"test_s": 3.5}, "on b: sudo ufw"),
    ],
)
def test_time_out_is_told_apart_by_how_far_the_test_came(
    error: str, detail: dict[str, Any], advice: str
) -> None:
    assert advice in for_test(way(test="timeout", error=error, **detail))


def test_advice_of_the_far_end_about_itself_is_passed_on() -> None:
    error = (
        "b: the iperf3 server failed: unable to create a new stream; its folder for temporary "
        "files (TMPDIR, else /tmp) must be one that it can write (here: control socket has closed)"
    )
    advice = for_test(way(test="bad_reply", error=error, test_s=1.0))
    assert advice == (
        "on b: its folder for temporary files (TMPDIR, else /tmp) must be one that it can write"
    )


def test_tool_that_does_not_start_has_its_own_advice() -> None:
    error = "b: /usr/local/bin/iperf3 does not start: no library; sudo ldconfig helps"
    assert "sudo ldconfig helps" in for_test(way(test="tool_missing", error=error))


def test_lost_echoes_are_no_firewall() -> None:
    lossy = Way(
        source=node("a", "10.0.0.1"),
        target=node("b", "10.0.0.2"),
        ping=found("ping", OK, loss_pct=20.0),
        handshakes={},
        test=None,
    )
    assert for_ping(lossy).startswith("is it the way or only ICMP: ptzmesh run --probe tcp")


def test_who_listens_is_asked_to_open_its_ports_also_when_the_target_connects() -> None:
    advice = for_test(way(test="refused", error="x", test_s=1.0, connected_by="b"))
    assert advice.startswith("on a: sudo ufw allow proto tcp from 10.0.0.2")
