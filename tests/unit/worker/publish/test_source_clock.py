"""Whose clock a record has, and when its time is moved to it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from worker.model.measurement import Measurement, Outcome
from worker.publish.source_clock import OFFSET, UNCERTAINTY, moved

BEGUN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
HERE = {OFFSET: 1.0, UNCERTAINTY: 0.5}


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
    there = {OFFSET: -999.0, UNCERTAINTY: 20.0}
    found = moved(record(), HERE, there)
    assert found.started_at == BEGUN - timedelta(seconds=1)
    assert found.detail == there


@pytest.mark.parametrize("there", [{OFFSET: -537.0, UNCERTAINTY: 750.0}, {OFFSET: -537.0}])
def test_time_stays_where_the_clocks_may_agree(there: dict[str, float]) -> None:
    found = moved(record(), HERE, there)
    assert found.started_at == BEGUN
    assert found.detail == there


def test_nothing_is_said_of_a_clock_that_is_not_known() -> None:
    assert moved(record(), HERE, {}) == record()
