"""Counting one target's echoes."""

from __future__ import annotations

import errno
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.probes.icmp.packet import IcmpError
from worker.probes.icmp.series import CERTAIN_NS, EchoSeries, Target, parse_address

MS = 1_000_000
WAIT = 1000 * MS
UNREACHABLE = IcmpError("host_unreachable", "10.0.0.1")


def target(sent: int = 3) -> Target:
    """Give a target with echoes sent at 0, 100, 200 ms and so on."""
    made = Target("192.0.2.1", socket.AF_INET, ("192.0.2.1", 0), WAIT)
    for echo in range(sent):
        made.sent(echo * 100 * MS, echo * 100 * MS + 9000, echo * 100 * MS)
    return made


def series_of(made: Target) -> EchoSeries:
    return made.series(9000 * MS, 0, "raw")


def test_rtt_ends_when_the_kernel_got_the_reply_and_not_when_we_read_it() -> None:
    made = target()
    made.answer(1, 105 * MS, 190 * MS)
    series = series_of(made)
    assert series.rtts_ms == (None, 5.0, None)
    assert series.read_lag_max_ms == 85.0
    assert (series.sent, series.received) == (3, 1)


def test_a_reply_in_time_counts_however_late_it_is_read() -> None:
    made = target()
    made.answer(0, WAIT, 9 * WAIT)
    made.answer(1, 100 * MS + WAIT + 1, 9 * WAIT)
    series = series_of(made)
    assert (series.received, series.late) == (1, 1)
    assert series.rtts_ms == (1000.0, None, None)


def test_second_replies_are_duplicates_of_answered_and_of_late_echoes() -> None:
    made = target()
    for _ in range(3):
        made.answer(0, 1 * MS, 1 * MS)
        made.answer(1, 3000 * MS, 3000 * MS)
    series = series_of(made)
    assert (series.received, series.late, series.duplicates) == (1, 1, 4)
    assert series.rtts_ms == (1.0, None, None)


@pytest.mark.parametrize("stamp_ns", [None, 99 * MS, 191 * MS])
def test_an_impossible_time_is_refused_and_the_reply_still_counts(stamp_ns: int | None) -> None:
    made = target()
    made.answer(1, stamp_ns, 190 * MS)
    series = series_of(made)
    assert (series.received, series.times_refused) == (1, 1)
    assert series.rtts_ms == (None, None, None)


def test_a_send_that_was_interrupted_has_no_certain_time_but_counts() -> None:
    made = target(0)
    made.sent(0, CERTAIN_NS + 1, 0)
    made.sent(100 * MS, 100 * MS + CERTAIN_NS, 100 * MS)
    made.answer(0, 5 * MS, 5 * MS)
    made.answer(1, 105 * MS, 105 * MS)
    series = series_of(made)
    assert (series.received, series.times_refused) == (2, 1)
    assert series.rtts_ms == (None, 5.0)


def test_without_a_time_a_reply_read_after_the_wait_is_late() -> None:
    made = target()
    made.answer(0, None, WAIT + 1)
    assert (series_of(made).received, series_of(made).late) == (0, 1)


def test_an_icmp_error_is_a_loss_with_a_reason() -> None:
    made = target()
    made.fail(0, UNREACHABLE, 1 * MS)
    series = series_of(made)
    assert (series.sent, series.received, series.errors) == (3, 0, 1)
    assert series.error == "host unreachable, said 10.0.0.1"
    assert series.error_kind == "host_unreachable"


@pytest.mark.parametrize("error_first", [True, False])
def test_a_reply_outweighs_an_error_that_may_be_forged(error_first: bool) -> None:
    made = target(1)
    if error_first:
        made.fail(0, UNREACHABLE, 1 * MS)
    made.answer(0, 2 * MS, 2 * MS)
    made.fail(0, UNREACHABLE, 3 * MS)
    series = series_of(made)
    assert (series.received, series.errors, series.error) == (1, 0, None)


def test_what_the_kernel_refused_was_not_sent_and_is_not_lost() -> None:
    made = target(0)
    made.refuse(0, OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH)))
    made.sent(100 * MS, 100 * MS, 100 * MS)
    made.answer(1, 101 * MS, 101 * MS)
    made.answer(0, 101 * MS, 101 * MS)
    series = series_of(made)
    assert (series.sent, series.received, series.refused, series.duplicates) == (1, 1, 1, 0)
    assert series.error == "network unreachable, said this host: Network is unreachable"


def test_an_echo_not_yet_sent_cannot_be_answered() -> None:
    made = target(1)
    made.answer(1, 1 * MS, 1 * MS)
    made.fail(7, UNREACHABLE, 1 * MS)
    assert (series_of(made).received, series_of(made).errors, made.pending) == (0, 0, 1)


def test_a_series_waits_for_the_last_echo_or_settles_after_the_last_answer() -> None:
    made = target()
    assert made.due_ns(20 * MS) == 200 * MS + WAIT
    for echo in range(3):
        made.answer(echo, 250 * MS, 260 * MS)
    assert made.due_ns(20 * MS) == 280 * MS


def test_real_interval_and_lag_are_recorded() -> None:
    made = target(0)
    made.sent(0, 0, 0)
    made.sent(250 * MS, 250 * MS, 100 * MS)
    series = series_of(made)
    assert series.interval_mean_s == 0.25
    assert series.send_lag_max_ms == 150.0


events = st.lists(
    st.tuples(
        st.sampled_from(["answer", "fail"]),
        st.integers(0, 5),
        st.none() | st.integers(-10, 3000),
        st.integers(0, 3000),
    ),
    max_size=40,
)


@given(events)
def test_counts_always_add_up(happened: list[tuple[str, int, int | None, int]]) -> None:
    made = target(4)
    for kind, echo, stamp_ms, read_ms in happened:
        if kind == "fail":
            made.fail(echo, UNREACHABLE, read_ms * MS)
        else:
            made.answer(echo, None if stamp_ms is None else stamp_ms * MS, read_ms * MS)
    series = series_of(made)
    timed = [rtt for rtt in series.rtts_ms if rtt is not None]
    assert series.received == len(timed) + series.times_refused
    assert series.sent == 4 == series.received + series.late + series.errors + made.pending
    assert all(0 <= rtt <= 1000 for rtt in timed)


def test_an_address_is_known_again_whatever_its_spelling() -> None:
    assert parse_address("2001:DB8:0::1")[1] == ("2001:db8::1", 0, 0, 0)
    scope = socket.if_nametoindex("lo")
    assert parse_address("fe80::1%lo") == (socket.AF_INET6, ("fe80::1", 0, 0, scope))
    assert parse_address("fe80::1%7")[1][3] == 7


@pytest.mark.parametrize(
    "address", ["camera-3.lan", "", "10.0.0.256", "1.2.3", "fe80::1", "fe80::1%nosuch0", "::1::"]
)
def test_what_is_no_address_is_an_os_error(address: str) -> None:
    with pytest.raises(OSError, match=r"."):
        parse_address(address)
