"""Converting wall-clock stamps while the wall clock may be set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from worker.probes.icmp.clock import STEP_NS, WallClock


class Clocks:
    """Two clocks that a test moves; each reading takes `reading_ns`."""

    def __init__(self) -> None:
        self.now_ns, self.offset_ns = 5_000_000_000, 1_700_000_000 * 10**9
        self.readings_ns: Iterator[int] = iter(lambda: 50, None)

    def monotonic_ns(self) -> int:
        self.now_ns += next(self.readings_ns)
        return self.now_ns

    def wall_ns(self) -> int:
        return self.monotonic_ns() + self.offset_ns


def test_an_untouched_clock_is_steady_and_converts_both_ways() -> None:
    clocks = Clocks()
    wall = WallClock(clocks.monotonic_ns, clocks.wall_ns)
    assert wall.sample()
    assert wall.to_monotonic_ns(wall.to_wall_ns(123)) == 123
    assert abs(wall.offset_ns - clocks.offset_ns) <= 100


def test_a_clock_that_was_set_is_noticed_once_in_either_direction() -> None:
    clocks = Clocks()
    wall = WallClock(clocks.monotonic_ns, clocks.wall_ns)
    for step_ns in (2 * STEP_NS, -2 * STEP_NS, 3600 * 10**9):
        clocks.offset_ns += step_ns
        assert not wall.sample()
        assert wall.sample()


def test_losing_the_cpu_between_two_readings_is_not_a_step() -> None:
    clocks = Clocks()
    wall = WallClock(clocks.monotonic_ns, clocks.wall_ns)
    before = wall.offset_ns
    # The first reading is torn apart by 40 ms, the second is near.
    clocks.readings_ns = (40_000_000 if n < 2 else 50 for n in count())
    assert wall.sample()
    assert abs(wall.offset_ns - before) < 1000
