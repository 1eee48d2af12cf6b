"""A node's clock beside Redis': the offset is right within its uncertainty, always."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.wire.clock_offset import DRIFT, KEPT, ClockEstimate, ClockOffset


class Clocks:
    """Three clocks over one course of time: a steady one, our wall clock, and Redis'."""

    def __init__(self, *, wall_ahead_s: float = 0.0, redis_drift: float = 0.0) -> None:
        self.now_s, self.asleep_s = 1_000_000.0, 0.0
        self.wall_ahead_s, self.redis_ahead_s, self.redis_drift = wall_ahead_s, 0.0, redis_drift
        self.offset = ClockOffset(steady_s=self.steady_s, wall_s=self.wall_s)

    def steady_s(self) -> float:
        return self.now_s - self.asleep_s

    def wall_s(self) -> float:
        return self.now_s + self.wall_ahead_s

    def redis_s(self) -> float:
        return self.now_s + self.redis_ahead_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.redis_ahead_s += self.redis_drift * seconds

    def exchange(self, out_s: float, back_s: float) -> None:
        sent_s = self.steady_s()
        self.wait(out_s)
        redis_s = self.redis_s()
        self.wait(back_s)
        self.offset.add(sent_s, redis_s)

    def estimate(self) -> ClockEstimate:
        found = self.offset.estimate()
        assert found is not None
        return found

    def error_ms(self) -> float:
        """Give how far the estimate is from the truth, less what it says that it may be."""
        found = self.estimate()
        truth_ms = (self.wall_s() - self.redis_s()) * 1e3
        return abs(found.offset_ms - truth_ms) - found.uncertainty_ms


delays = st.floats(0.0001, 8.0)
#: What floating point leaves of a million seconds.
ROUNDING_MS = 1e-3


def test_before_the_first_exchange_nothing_is_known() -> None:
    assert ClockOffset().estimate() is None


@given(
    st.lists(st.tuples(delays, delays, st.floats(0.0, 60.0)), min_size=1, max_size=80),
    st.floats(-DRIFT, DRIFT),
    st.floats(-1e5, 1e5),
)
def test_offset_is_right_within_its_uncertainty_whatever_the_queues(
    exchanges: list[tuple[float, float, float]], drift: float, wall_ahead_s: float
) -> None:
    clocks = Clocks(wall_ahead_s=wall_ahead_s, redis_drift=drift)
    for out_s, back_s, pause_s in exchanges:
        clocks.exchange(out_s, back_s)
        clocks.wait(pause_s)
        assert clocks.error_ms() <= ROUNDING_MS


def test_queue_that_is_full_for_minutes_costs_milliseconds() -> None:
    clocks = Clocks()
    clocks.exchange(0.001, 0.001)
    for _ in range(20):
        clocks.wait(8.5)
        clocks.exchange(1.5, 0.001)
    found = clocks.estimate()
    assert abs(found.offset_ms) <= ROUNDING_MS
    assert found.uncertainty_ms < 25


def test_long_exchange_alone_says_that_it_says_little() -> None:
    clocks = Clocks()
    clocks.exchange(1.5, 0.001)
    found = clocks.estimate()
    assert found.offset_ms == pytest.approx(-749.5)
    assert found.uncertainty_ms == pytest.approx(750.5, abs=1.0)


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 0.5])
def test_step_of_our_own_clock_is_known_at_once(step_s: float) -> None:
    clocks = Clocks()
    clocks.exchange(0.001, 0.001)
    clocks.wall_ahead_s += step_s
    assert clocks.estimate().offset_ms == pytest.approx(step_s * 1e3)
    assert clocks.error_ms() <= ROUNDING_MS


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 0.5])
def test_step_of_the_clock_of_redis_is_known_at_the_next_exchange(step_s: float) -> None:
    clocks = Clocks()
    clocks.exchange(0.001, 0.001)
    clocks.redis_ahead_s += step_s
    clocks.exchange(0.01, 0.01)
    assert clocks.estimate().offset_ms == pytest.approx(-step_s * 1e3)
    assert clocks.error_ms() <= ROUNDING_MS


def test_machine_that_slept_is_no_offset() -> None:
    clocks = Clocks()
    clocks.exchange(0.001, 0.001)
    clocks.wait(3600)
    clocks.asleep_s = 3600
    clocks.exchange(0.01, 0.01)
    assert clocks.error_ms() <= ROUNDING_MS


def test_what_is_kept_is_bounded() -> None:
    clocks = Clocks()
    for _ in range(3 * KEPT):
        clocks.exchange(0.001, 0.001)
    assert len(clocks.offset._kept) == KEPT
