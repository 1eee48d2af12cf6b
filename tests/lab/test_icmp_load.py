"""The echo engine on a real kernel: many targets, many processes, and one that was stopped."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from waiting import wait_until

from lab.conftest import MakeLab
from lab.echoes import FAR, FAR_TOO, Pair, finish, times_of

pytestmark = [pytest.mark.lab, pytest.mark.quiet]


def has_socket(pid: int) -> bool:
    """Tell whether a process has opened its socket: its echoes follow within milliseconds."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            if str(descriptor.readlink()).startswith("socket:"):
                return True
    return False


def test_a_process_that_was_stopped_measures_right_and_says_it_was_late(lab: MakeLab) -> None:
    made = lab(2)
    near, far = made.nodes
    made.round_trip(near, far, 40)
    pair = Pair(near.namespace, far.namespace)
    process = pair.start([far.address], count=150, interval_s=0.02, wait_s=5)
    wait_until(lambda: has_socket(process.pid), "it measures")
    time.sleep(0.2)  # a few echoes; all take 3 s
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(0.4)
    os.kill(process.pid, signal.SIGCONT)
    one, _ = finish(process)
    assert one["received"] == 150
    assert min(times_of(one)) >= 40
    assert max(times_of(one)) < 200
    assert one["read_lag_max_ms"] > 200
    assert one["send_lag_max_ms"] > 300


def test_a_slow_consumer_neither_delays_nor_loses(joined: Pair) -> None:
    found = joined.echo([FAR, FAR_TOO] * 2, pause_s=1.5, wait_s=0.1)
    assert [one["received"] for one in found] == [10] * 4
    assert max(one["send_lag_max_ms"] for one in found) < 1500


def test_a_thousand_targets_on_one_socket_lose_nothing(joined: Pair) -> None:
    started = joined.start([FAR, FAR_TOO] * 500, interval_s=0.1, wait_s=1.0)
    *found, end = finish(started)
    assert sum(one["received"] for one in found) == 10_000
    assert max(one["receive_drops"] for one in found) == 0
    assert end["wall_s"] < 60  # not one after another


def test_sixteen_processes_at_once_lose_nothing_and_hear_only_themselves(joined: Pair) -> None:
    started = [joined.start([FAR, FAR_TOO] * 8, interval_s=0.1) for _ in range(16)]
    for process in started:
        *found, _ = finish(process)
        assert [one["received"] for one in found] == [10] * 16
        assert sum(one["duplicates"] + one["receive_drops"] for one in found) == 0


@pytest.mark.long
def test_more_than_65536_echoes_wrap_the_sequence_and_confuse_nothing(joined: Pair) -> None:
    found = joined.echo([FAR, FAR_TOO] * 350, count=100, interval_s=0.001, wait_s=20)
    assert sum(one["received"] for one in found) == 70_000
    assert sum(one["duplicates"] for one in found) == 0
    # A reply that was taken for that of an echo 65536 before or after it is 6.5 s off.
    assert max(max(times_of(one)) for one in found) < 6000


def test_stopped_early_it_yields_only_what_is_complete_and_closes(joined: Pair) -> None:
    *whole, end_whole = finish(joined.start([FAR], count=2))
    *found, end = finish(joined.start([FAR], count=2000, interval_s=0.1, stop_after_s=0.3))
    assert len(whole) == 1
    assert found == []
    assert end["wall_s"] < 60
    assert end["open"] == end_whole["open"]
