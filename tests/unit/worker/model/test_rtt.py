"""The statistics over a series of round-trip times."""

from __future__ import annotations

import math
from dataclasses import fields
from itertools import pairwise
from statistics import fmean, median, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.model.rtt import (
    MIN_REPLIES_FOR_P95,
    RttStatistics,
    packet_loss_pct,
    percentile,
    rtt_statistics,
)

times = st.integers(0, 10**11).map(lambda ns: ns / 1e6)
series = st.lists(st.none() | times, max_size=60)


def test_lost_echo_is_not_averaged_into_rtt() -> None:
    statistics = rtt_statistics([10.0, None, 20.0, None])
    assert (statistics.rtt_min_ms, statistics.rtt_mean_ms, statistics.rtt_max_ms) == (10, 15, 20)


@pytest.mark.parametrize("rtts_ms", [[], [None], [None] * 50])
def test_nothing_answered_is_undefined_and_not_zero(rtts_ms: list[None]) -> None:
    assert rtt_statistics(rtts_ms) == RttStatistics()


def test_stddev_is_the_populations() -> None:
    assert rtt_statistics([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).rtt_stddev_ms == 2.0


def test_one_reply_has_no_jitter_and_no_deviation() -> None:
    statistics = rtt_statistics([7.0])
    assert statistics.rtt_stddev_ms == 0.0
    assert statistics.jitter_mean_abs_ms is None


def test_p95_is_absent_while_it_would_be_the_maximum() -> None:
    rtts_ms = [float(n) for n in range(1, MIN_REPLIES_FOR_P95)]
    assert rtt_statistics(rtts_ms).rtt_p95_ms is None
    assert rtt_statistics([*rtts_ms, None]).rtt_p95_ms is None
    assert rtt_statistics([*rtts_ms, 100.0]).rtt_p95_ms == 19.0


@given(series)
def test_statistics_are_ordered(rtts_ms: list[float | None]) -> None:
    answered = [rtt for rtt in rtts_ms if rtt is not None]
    statistics = rtt_statistics(rtts_ms)
    if not answered:
        assert all(getattr(statistics, field.name) is None for field in fields(statistics))
        return
    assert statistics.rtt_min_ms is not None
    assert statistics.rtt_median_ms is not None
    assert statistics.rtt_max_ms is not None
    assert statistics.rtt_min_ms <= statistics.rtt_median_ms <= statistics.rtt_max_ms
    if statistics.rtt_p95_ms is not None:
        assert statistics.rtt_p95_ms in answered


@given(st.lists(times, min_size=1, max_size=200), st.integers(1, 100))
def test_percentile_is_the_smallest_value_that_covers_so_many(
    values: list[float], percent: int
) -> None:
    found = percentile(values, percent)
    assert found is not None
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


def test_percentile_of_nothing_is_absent_and_of_nonsense_refused() -> None:
    assert percentile([], 95) is None
    for percent in (0, -1, 101, math.nan):
        with pytest.raises(ValueError, match="percent"):
            percentile([1.0], percent)


def test_jitter_leaves_out_pairs_with_a_loss() -> None:
    assert rtt_statistics([1.0, None, 100.0]).jitter_mean_abs_ms is None
    assert rtt_statistics([1.0, 2.0, None, 100.0, 98.0]).jitter_mean_abs_ms == 1.5


@given(st.lists(times, min_size=2, max_size=60))
def test_statistics_are_those_of_the_standard_library_to_the_nanosecond(
    rtts_ms: list[float],
) -> None:
    found = rtt_statistics(rtts_ms)
    steps = [abs(b - a) for a, b in pairwise(rtts_ms)]
    assert found.rtt_mean_ms == pytest.approx(fmean(rtts_ms), abs=0.51e-6)
    assert found.rtt_median_ms == pytest.approx(median(rtts_ms), abs=0.51e-6)
    assert found.rtt_stddev_ms == pytest.approx(pstdev(rtts_ms), abs=0.51e-6)
    assert found.jitter_mean_abs_ms == pytest.approx(fmean(steps), abs=0.51e-6)


def test_half_a_nanosecond_goes_to_the_even_one() -> None:
    found = rtt_statistics([0.000001, 0.000002])
    assert (found.rtt_mean_ms, found.rtt_median_ms) == (0.000002, 0.000002)
    assert rtt_statistics([0.000002, 0.000003]).rtt_mean_ms == 0.000002


def test_loss_is_never_rounded_and_absent_when_nothing_was_sent() -> None:
    assert packet_loss_pct(3, 2) == 100 / 3
    assert packet_loss_pct(10, 0) == 100.0
    assert packet_loss_pct(10, 10) == 0.0
    assert packet_loss_pct(0, 0) is None


def test_more_received_than_sent_is_refused() -> None:
    with pytest.raises(ValueError, match="received"):
        packet_loss_pct(1, 2)
