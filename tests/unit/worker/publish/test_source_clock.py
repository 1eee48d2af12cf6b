"""Whose clock a record has, and when its time is moved to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from worker.model.detail import Detail
from worker.model.measurement import Measurement, Outcome
from worker.publish.source_clock import moved
from worker.wire.node_record import Clock

BEGUN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
HERE = Clock(clock_offset_ms=1.0, clock_offset_uncertainty_ms=0.5)
FAR_OFF = Clock(clock_offset_ms=-537.0)


def record() -> Measurement:
    return Measurement(
        run="r1",
        probe="throughput",
        source="a",
        target="b",
        address="10.0.0.2",
        started_at=BEGUN,
        outcome=Outcome.OK,
    )


def test_time_is_moved_to_a_clock_that_differs_beyond_doubt() -> None:
    there = Clock(clock_offset_ms=-999.0, clock_offset_uncertainty_ms=20.0)
    found = moved(record(), HERE, there)
    assert found.started_at == BEGUN - timedelta(seconds=1)
    assert found.detail == Detail(**vars(there))


@pytest.mark.parametrize("there", [replace(FAR_OFF, clock_offset_uncertainty_ms=750.0), FAR_OFF])
def test_time_stays_where_the_clocks_may_agree(there: Clock) -> None:
    found = moved(record(), HERE, there)
    assert found.started_at == BEGUN
    assert found.detail == Detail(**vars(there))


def test_nothing_is_said_of_a_clock_that_is_not_known() -> None:
    assert moved(record(), HERE, Clock()) == record()
