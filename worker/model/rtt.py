"""
Statistics over the round-trip times of one series of echoes.

Pure. A lost echo is None in the series and never a number in a statistic: its round-trip time is
undefined (RFC 2681), so it is left out of times and counted in `packet_loss_pct`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

#: With fewer replies the nearest rank of 95 % is the last one: p95 would only repeat the maximum.
MIN_REPLIES_FOR_P95 = 20


@dataclass(frozen=True, kw_only=True)
class RttStatistics:
    """
    Round-trip times of one series in milliseconds; each None when it is not defined.

    Attributes:
        rtt_mean_ms: Arithmetic mean.
        rtt_median_ms: Middle one, or the mean of the middle two.
        rtt_p95_ms: 95th percentile, nearest rank; None below `MIN_REPLIES_FOR_P95` replies.
        rtt_stddev_ms: Population standard deviation, what ping calls `mdev`.
        jitter_mean_abs_ms: Mean absolute difference of neighbours, both answered: mean |ipdv| of
            RFC 3393 section 4.5, over RTT; not the smoothed jitter of RFC 3550.
    """

    rtt_min_ms: float | None = None
    rtt_mean_ms: float | None = None
    rtt_median_ms: float | None = None
    rtt_p95_ms: float | None = None
    rtt_max_ms: float | None = None
    rtt_stddev_ms: float | None = None
    jitter_mean_abs_ms: float | None = None


#: Names of the statistics, in their order.
STATISTICS = tuple(one.name for one in fields(RttStatistics))
_UNDEFINED = (None,) * len(STATISTICS)
_NS_PER_MS = 1e6


def rtt_statistics(rtts_ms: Sequence[float | None]) -> RttStatistics:
    """
    Summarise a series of milliseconds, None where lost, each taken to the nanosecond.

    >>> rtt_statistics([1.0, None, 3.0]).rtt_mean_ms
    2.0
    >>> rtt_statistics([None]).rtt_mean_ms is None
    True
    """
    rtts_ns = [None if rtt is None else round(rtt * _NS_PER_MS) for rtt in rtts_ms]
    return RttStatistics(**dict(zip(STATISTICS, statistics_of_ns(rtts_ns), strict=True)))


def statistics_of_ns(rtts_ns: Sequence[int | None]) -> tuple[float | None, ...]:
    """
    Summarise a series of nanoseconds, None where lost: milliseconds in the order of `STATISTICS`.

    Each is a whole number of nanoseconds, halves to the even one. Records are read by it: what is
    changed here changes what is read of records that are there.
    """
    return tuple([None if ns is None else ns / _NS_PER_MS for ns in statistics_in_ns(rtts_ns)])


def statistics_in_ns(rtts_ns: Sequence[int | None]) -> tuple[int | None, ...]:
    """Return what `statistics_of_ns` does, as nanoseconds."""
    answered = [ns for ns in rtts_ns if ns is not None]
    if not answered:
        return _UNDEFINED
    whole = whole_series_in_ns(answered)
    if len(answered) == len(rtts_ns):
        return whole
    # A pair with a loss is left out.
    ways = [abs(b - a) for a, b in pairwise(rtts_ns) if a is not None and b is not None]
    return (*whole[:-1], round(sum(ways) / len(ways)) if ways else None)


def whole_series_in_ns(
    rtts_ns: Sequence[int],
) -> tuple[int, int, int, int | None, int, int, int | None]:
    """
    Return what `statistics_in_ns` does, of a series of which none was lost, and not empty.

    Raises:
        TypeError: One is no integer.
    """
    ordered = sorted(rtts_ns)
    count = len(ordered)
    # `way` over the steps is the mean |ipdv| of RFC 3393 section 4.5, over RTT.
    way, squares, before = 0, 0, rtts_ns[0]
    for ns in rtts_ns:
        way += ns - before if ns > before else before - ns
        squares += ns * ns
        before = ns
    total = sum(ordered)
    if type(total) is not int:
        raise TypeError("a sample is no whole number of nanoseconds")
    middle = count // 2
    median_ns = ordered[middle]
    if not count & 1:
        median_ns = round((median_ns + ordered[middle - 1]) / 2)
    return (
        ordered[0],
        round(total / count),
        median_ns,
        ordered[nearest_rank(count, 95) - 1] if count >= MIN_REPLIES_FOR_P95 else None,
        ordered[-1],
        # Exact, as integers: the variance times the square of the count.
        round(math.sqrt(count * squares - total * total) / count),
        round(way / (count - 1)) if count > 1 else None,
    )


def percentile(values: Sequence[float], percent: float) -> float | None:
    """
    Return the smallest value that at least `percent` of all values do not exceed.

    Nearest rank (RFC 2330 section 11.3): always one of the values, never interpolated.

    Args:
        values: In any order.
        percent: Above 0, up to 100.

    Returns:
        None when there are no values.

    >>> percentile([15.0, 20.0, 35.0, 40.0, 50.0], 30)
    20.0
    """
    if not 0 < percent <= 100:
        raise ValueError(f"percent ({percent}) must be above 0 and at most 100")
    if not values:
        return None
    return sorted(values)[nearest_rank(len(values), percent) - 1]


def nearest_rank(count: int, percent: float) -> int:
    """
    Return the rank of a percentile among so many ordered values, from 1.

    >>> nearest_rank(20, 95)
    19
    """
    # Multiplied first: 95 / 100 * 20 is 19.000000000000004 in binary, a rank too high.
    return math.ceil(percent * count / 100)


def packet_loss_pct(sent: int, received: int) -> float | None:
    """
    Round-trip loss in percent (RFC 6673), never rounded.

    Args:
        sent: Echoes that left; what the kernel refused to send was not sent.
        received: Echoes answered in time; neither duplicates nor late replies.

    Returns:
        None when nothing was sent.

    >>> packet_loss_pct(8, 7)
    12.5
    """
    if not 0 <= received <= sent:
        raise ValueError(f"received ({received}) must be between 0 and sent ({sent})")
    return (sent - received) * 100 / sent if sent else None
