"""Rounds and series of `ptzmesh test` made for tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from samples import ping_statistics

from coordinator.series.options import SeriesOptions
from coordinator.series.series import Round, Series
from worker.model.measurement import Measurement, Outcome
from worker.model.rtt import rtt_statistics

BEGUN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
LOST = (None,) * 5


def a_round(
    number: int,
    rtts_ms: Sequence[float | None],
    *,
    source: str = "cam-1",
    mbps: float | None = None,
    tested: bool = False,
    offset_ms: float | None = None,
    uncertainty_ms: float | None = None,
) -> Round:
    answered = [rtt for rtt in rtts_ms if rtt is not None]
    found = rtt_statistics(rtts_ms)
    detail = ping_statistics(
        rtts_ms, clock_offset_ms=offset_ms, clock_offset_uncertainty_ms=uncertainty_ms
    )
    ping = Measurement(
        run="test",
        probe="ping",
        source=source,
        target="hub",
        address="10.0.0.1",
        started_at=BEGUN + timedelta(seconds=5 * number),
        outcome=Outcome.OK if answered else Outcome.NO_REPLY,
        error="" if answered else "none of 5 echoes was answered in time",
        latency_ms=found.rtt_mean_ms,
        packet_loss_pct=100 * (1 - len(answered) / len(rtts_ms)),
        detail=detail,
    )
    test = Measurement(
        run="test",
        probe="throughput",
        source=source,
        target="hub",
        address="10.0.0.1",
        started_at=ping.started_at,
        outcome=Outcome.OK if mbps else Outcome.REFUSED,
        error="" if mbps else "Connection refused",
        throughput_mbps=mbps,
    )
    return Round(number=number, ping=ping, throughput=test if tested or mbps else None)


def a_series(
    rounds: Sequence[Round],
    *,
    sources: Sequence[str] = ("cam-1",),
    options: SeriesOptions | None = None,
) -> Series:
    options = options or SeriesOptions()
    made = Series(
        target="hub", address="10.0.0.1", sources=sources, options=options, started_at=BEGUN
    )
    for one in rounds:
        made.add(one)
    return made
