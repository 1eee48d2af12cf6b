"""What signs make of measurements. Pure."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from worker.model.detail import Detail, TcpStatistics
from worker.model.measurement import Measurement, Outcome
from worker.probes.interception.interception import FASTER, Sign, judged, with_echoes


def measured(*rtts_ms: float | None, outcome: Outcome = Outcome.OK, **detail: Any) -> Measurement:
    return Measurement(
        run="r", probe="tcp", source="a", target="b", address="192.0.2.1", outcome=outcome,
        started_at=datetime(2026, 1, 1, tzinfo=timezone.utc), latency_ms=1.0, packet_loss_pct=0.0,
        detail=TcpStatistics(
            sent=3, received=len([1 for rtt in rtts_ms if rtt]), accepted=3, refusals=0, port=22,
            wait_s=1.0, interval_s=0.1, elapsed_s=1.0, rtts_ms=rtts_ms, rtt_min_ms=1.0, **detail,
        ),
    )  # fmt: skip


def test_no_number_of_what_a_proxy_answered_stays() -> None:
    found = judged(measured(1.0, 1.0, 1.0, wake_ms=0.4), Sign(error="a proxy"))
    assert (found.outcome, found.error) == (Outcome.INTERCEPTED, "a proxy")
    assert (found.latency_ms, found.packet_loss_pct, found.throughput_mbps) == (None, None, None)
    assert found.detail == Detail(more={"sent": 3, "port": 22})


def test_hint_is_a_mark_beside_numbers_and_hints_add_up() -> None:
    found = judged(measured(1.0, 1.1, 1.2), Sign(hint="odd_port_answered"))
    assert (found.outcome, found.latency_ms) == (Outcome.OK, 1.0)
    assert with_echoes(found, 20.0).detail.hint == f"odd_port_answered {FASTER}"
    silent = measured(None, outcome=Outcome.NO_REPLY)
    assert judged(silent, Sign(hint="odd_port_answered")) == silent


@pytest.mark.parametrize(
    ("times_ms", "icmp_min_ms", "is_marked"),
    [
        ((4.0, 3.0, 9.0), 20.0, True),
        ((4.0, 3.0, None), 20.0, False),  # two times are chance
        ((4.0, 3.0, 9.0), None, False),
        ((4.0, 3.0, 9.0), 5.9, False),
        ((0.2, 0.1, 0.2), 0.5, False),  # of no path that is worth the name
    ],
)
def test_handshakes_much_faster_than_echoes_are_marked(
    times_ms: tuple[float | None, ...], icmp_min_ms: float | None, is_marked: bool
) -> None:
    found = with_echoes(measured(*times_ms), icmp_min_ms)
    assert (found.detail.hint == FASTER) is is_marked
