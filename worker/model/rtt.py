"""
Statistics over the round-trip times of one series of echoes.

Pure. A lost echo is None in the series and never a number in a statistic: its round-trip time is
undefined (RFC 2681), so it is left out of times and counted in `packet_loss_pct`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median, pstdev

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
    """

    rtt_min_ms: float | None = None
    rtt_mean_ms: float | None = None
    rtt_median_ms: float | None = None
    rtt_p95_ms: float | None = None
    rtt_max_ms: float | None = None
    rtt_stddev_ms: float | None = None
    jitter_mean_abs_ms: float | None = None


def rtt_statistics(rtts_ms: Sequence[float | None]) -> RttStatistics:
    """
    Summarise a series of milliseconds, None where lost.

    >>> rtt_statistics([1.0, None, 3.0]).rtt_mean_ms
    2.0
    >>> rtt_statistics([None]).rtt_mean_ms is None
    True
    """
    answered = [rtt for rtt in rtts_ms if rtt is not None]
    if not answered:
        return RttStatistics()
    return RttStatistics(
        rtt_min_ms=min(answered),
        rtt_mean_ms=fmean(answered),
        rtt_median_ms=median(answered),
        rtt_p95_ms=percentile(answered, 95) if len(answered) >= MIN_REPLIES_FOR_P95 else None,
        rtt_max_ms=max(answered),
        rtt_stddev_ms=pstdev(answered),
        jitter_mean_abs_ms=jitter_mean_abs_ms(rtts_ms),
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
    # Multiplied first: 95 / 100 * 20 is 19.000000000000004 in binary, a rank too high.
    return sorted(values)[math.ceil(percent * len(values) / 100) - 1]


def jitter_mean_abs_ms(rtts_ms: Sequence[float | None]) -> float | None:
    """
    Mean absolute difference between neighbouring round-trip times.

    Mean |ipdv| of RFC 3393 section 4.5, over RTT; not the smoothed jitter of RFC 3550.

    Args:
        rtts_ms: Milliseconds in sending order, None where lost; a pair with a loss is left out.

    Returns:
        Milliseconds, or None when no two neighbours were answered.

    >>> jitter_mean_abs_ms([10.0, 12.0, None, 30.0, 31.0])
    1.5
    """
    diffs = [abs(b - a) for a, b in pairwise(rtts_ms) if a is not None and b is not None]
    return fmean(diffs) if diffs else None


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
