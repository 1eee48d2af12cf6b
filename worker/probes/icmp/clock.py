"""
Kernel receive stamps, which are wall-clock times, on the monotonic clock.

The wall clock may be set while an echo is under way; a monotonic clock may not. NTP slews both
alike (clock_gettime(2)), so the difference between them moves only when the wall clock is set.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: A difference that moved further than this between two samples means a clock that was set; two
#: samples of an untouched clock differ by less than a microsecond.
STEP_NS = 1_000_000
#: A wall-clock reading between two monotonic ones so near to each other is exact enough.
NEAR_NS = 1_000
#: Else the nearest of so many is taken: the process may lose the CPU between two readings.
READINGS = 4


class WallClock:
    """The wall clock as seen from the monotonic clock."""

    def __init__(
        self,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Take the first sample; both clocks in nanoseconds."""
        self._monotonic_ns, self._wall_ns = monotonic_ns, wall_ns
        self.offset_ns = self._read()

    def sample(self) -> bool:
        """
        Take a sample, from which on `to_monotonic_ns` converts; False if the clock was set.

        No stamp taken between the sample before and this one can be converted then.
        """
        before, self.offset_ns = self.offset_ns, self._read()
        return abs(self.offset_ns - before) <= STEP_NS

    def to_monotonic_ns(self, wall_ns: int) -> int:
        """Convert a wall-clock stamp."""
        return wall_ns - self.offset_ns

    def to_wall_ns(self, monotonic_ns: int) -> int:
        """Convert a monotonic time to nanoseconds since the epoch."""
        return monotonic_ns + self.offset_ns

    def _read(self) -> int:
        narrowest, offset_ns = None, 0
        for _ in range(READINGS):
            before, wall, after = self._monotonic_ns(), self._wall_ns(), self._monotonic_ns()
            if narrowest is None or after - before < narrowest:
                narrowest, offset_ns = after - before, wall - (before + after) // 2
            if narrowest <= NEAR_NS:
                break
        return offset_ns
