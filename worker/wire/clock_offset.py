"""
A node's clock beside Redis', from exchanges that it has anyway, and how far that may be wrong.

After the clock filter of NTP (RFC 5905 section 10): of many exchanges the shortest is believed, as
it waited in no queue, and each less as it gets older, as clocks drift. Redis' clock is kept beside
one that nobody sets (`CLOCK_MONOTONIC_RAW`), so that a step or slew of our wall clock is seen.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

#: Seconds a second by which two clocks part at most: quartz is right to some 50 ppm, and there are
#: two. RFC 5905's PHI of 15 ppm is of clocks that NTP disciplines.
DRIFT = 100e-6
#: Exchanges that are kept: ten minutes of heartbeats.
KEPT = 60
#: The wall clock is read so often between two readings of the other; the nearest pair counts.
READINGS = 4


@dataclass(frozen=True, kw_only=True)
class ClockEstimate:
    """
    This machine's clock minus Redis'.

    Attributes:
        offset_ms: The estimate.
        uncertainty_ms: It is wrong by no more than this, to either side.
    """

    offset_ms: float
    uncertainty_ms: float


def beyond_doubt_ms(offset_ms: float | None, uncertainty_ms: float | None) -> float:
    """
    Return what an offset is at least, without its sign; 0 when there may be none, or no estimate.

    >>> beyond_doubt_ms(-537.0, 750.0), beyond_doubt_ms(-537.0, 7.0), beyond_doubt_ms(9.0, None)
    (0.0, 530.0, 0.0)
    """
    if offset_ms is None or uncertainty_ms is None:
        return 0.0
    return max(0.0, abs(offset_ms) - uncertainty_ms)


@dataclass(frozen=True)
class _Exchange:
    """Redis' clock minus our steady one, right to `half_s`, at some time from `sent_s` on."""

    sent_s: float
    ahead_s: float
    half_s: float

    def uncertainty_s(self, now_s: float) -> float:
        return self.half_s + DRIFT * (now_s - self.sent_s)

    def agrees_with(self, other: _Exchange, now_s: float) -> bool:
        apart_s = abs(self.ahead_s - other.ahead_s)
        return apart_s <= self.uncertainty_s(now_s) + other.uncertainty_s(now_s)


def steady_s() -> float:
    """Read the seconds of the clock that nobody sets."""
    return time.clock_gettime(time.CLOCK_MONOTONIC_RAW)


@dataclass
class ClockOffset:
    """
    The offset by the latest exchanges.

    Attributes:
        steady_s: Reads the seconds of a clock that nobody sets.
        wall_s: Reads those of the clock that is judged.
    """

    steady_s: Callable[[], float] = steady_s
    wall_s: Callable[[], float] = time.time
    _kept: deque[_Exchange] = field(default_factory=lambda: deque(maxlen=KEPT))

    def add(self, sent_s: float, redis_s: float) -> ClockEstimate:
        """
        Take an exchange that ends now, and return the offset with it.

        What contradicts it is forgotten: since then a clock was set, or this machine slept.

        Args:
            sent_s: When it began, on the steady clock.
            redis_s: What Redis' clock was somewhere in between.
        """
        now_s = self.steady_s()
        half_s = (now_s - sent_s) / 2
        new = _Exchange(sent_s, redis_s - (sent_s + half_s), half_s)
        agreeing = [old for old in self._kept if old.agrees_with(new, now_s)]
        self._kept = deque([*agreeing, new], maxlen=KEPT)
        return self._estimate()

    def estimate(self) -> ClockEstimate | None:
        """Return the offset as of now; None before the first exchange."""
        return self._estimate() if self._kept else None

    def _estimate(self) -> ClockEstimate:
        wall_s, half_s, now_s = min(map(self._read, range(READINGS)), key=lambda one: one[1])
        best = min(self._kept, key=lambda one: one.uncertainty_s(now_s))
        return ClockEstimate(
            offset_ms=(wall_s - now_s - best.ahead_s) * 1e3,
            uncertainty_ms=(best.uncertainty_s(now_s) + half_s) * 1e3,
        )

    def _read(self, _: int) -> tuple[float, float, float]:
        """Read the wall clock, half of how long it took to read it, and the steady time of it."""
        before_s, wall_s, after_s = self.steady_s(), self.wall_s(), self.steady_s()
        half_s = (after_s - before_s) / 2
        return wall_s, half_s, before_s + half_s
