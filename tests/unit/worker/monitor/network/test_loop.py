"""The loop measures beside the host, which only ever sets a flag."""

from __future__ import annotations

import csv
import math
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from waiting import wait_until

from worker.model.measurement import Measurement
from worker.monitor import NetworkMonitor, process
from worker.monitor.network import loop
from worker.monitor.records import metrics_csv
from worker.monitor.records.record import PING, record
from worker.monitor.tagging import tags


class Hosts:
    """Stands for the network: notes who asked, on which thread."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.threads: set[str] = set()
        self.tags: list[dict[str, object]] = []

    def measure(
        self, hosts: Sequence[str], *, count: int, should_stop: Callable[[], bool]
    ) -> list[Measurement]:
        self.threads.add(threading.current_thread().name)
        self.tags.append(tags())
        self.asked.append(tuple(hosts))  # last: it is what tests wait for
        return [record(probe=PING, target=host, address=host, latency_ms=1.0) for host in hosts]

    def were_asked(self, times: int) -> Callable[[], bool]:
        return lambda: len(self.asked) == times


def exceeds(calls: list[int], number: int) -> bool:
    return len(calls) > number


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    made = Hosts()
    monkeypatch.setattr(loop, "measure_hosts", made.measure)
    monkeypatch.setattr(loop, "STOP_DEADLINE_S", 60.0)
    return made


def rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_measures_at_once_and_at_each_interval(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MIN_INTERVAL_S", 0.01)
    with NetworkMonitor(["a", "b"], 0.02, csv_path=tmp_path / "m.csv"):
        wait_until(lambda: len(hosts.asked) >= 5, "it is measured five times")
    assert set(hosts.asked) == {("a", "b")}
    assert len(rows(tmp_path / "m.csv")) == 2 * len(hosts.asked)
    assert hosts.threads == {"ptzmesh-monitor"}


def test_each_nth_cycle_is_measured_tagged_and_saved(hosts: Hosts, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    with NetworkMonitor(["a"], math.inf, every_cycles=5, csv_path=path) as monitor:
        wait_until(lambda: len(rows(path)) == 1, "row 1 is there")
        for number in range(1, 11):
            monitor.cycle(number)
            wait_until(
                hosts.were_asked(1 + number // 5), f"cycle {number} is measured when it is due"
            )
        wait_until(lambda: len(rows(path)) == 3, "row 3 is there")
        with monitor.activity("world_model"):
            monitor.cycle(15)
            wait_until(lambda: len(rows(path)) == 4, "row 4 is there")
    assert hosts.tags[1:] == [
        {"cycle": 5},
        {"cycle": 10},
        {"cycle": 15, "activity": "world_model"},
    ]


def test_the_caller_only_sets_a_flag(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, threads, saved = threading.Event(), set(), []

    def slow(_path: Path, measurements: Sequence[Measurement]) -> int:
        threads.add(threading.current_thread().name)
        release.wait(60)
        saved.append(len(measurements))
        return len(measurements)

    monkeypatch.setattr(metrics_csv, "append", slow)
    monitor = NetworkMonitor(["a"], 300, every_cycles=1, csv_path=tmp_path / "m.csv").start()
    wait_until(lambda: bool(threads), "the loop has its thread")
    for number in range(1000):
        with monitor.activity("train"):
            monitor.cycle(number)
    assert saved == [], "the caller waited for the file"
    release.set()
    monitor.stop()
    assert threads == {"ptzmesh-monitor"}
    assert saved


def test_intervals_are_spread(hosts: Hosts) -> None:
    monitor = NetworkMonitor(["a"], 300)
    pauses = [monitor._pause_s() for _ in range(200)]
    assert 270 <= min(pauses) < 285
    assert 315 < max(pauses) <= 330


@pytest.mark.parametrize("interval_s", [0, -1, math.nan, 0.5])
def test_an_interval_that_is_none_is_told_and_replaced(
    interval_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    assert NetworkMonitor(["a"], interval_s).interval_s == 300
    assert "interval" in caplog.text


def test_no_hosts_is_told_once_and_the_file_is_saved(
    hosts: Hosts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with NetworkMonitor([], csv_path=tmp_path / "m.csv") as monitor:
        process.recorder().add(record(probe=PING, target="hub", address="hub"))
        monitor.cycle(1)
        wait_until(lambda: len(rows(tmp_path / "m.csv")) == 1, "the first row is there")
    assert caplog.text.count("no host") == 1


def test_a_string_is_no_list_of_hosts(caplog: pytest.LogCaptureFixture) -> None:
    with NetworkMonitor("hub") as monitor:
        assert monitor.hosts == ()
    assert "must be a list" in caplog.text


def test_what_the_block_raises_goes_on(hosts: Hosts, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), NetworkMonitor(["a"], csv_path=tmp_path / "m.csv"):
        raise ZeroDivisionError


def test_measuring_that_fails_does_not_end_the_loop(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def broken(*args: object, **kwargs: object) -> list[Measurement]:
        calls.append(1)
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(loop, "measure_hosts", broken)
    with NetworkMonitor(["a"], every_cycles=1, csv_path=tmp_path / "m.csv") as monitor:
        for number in range(3):
            monitor.cycle(number)
            wait_until(partial(exceeds, calls, number), f"more than {number} rounds were begun")


def test_stop_returns_although_a_measurement_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "STOP_DEADLINE_S", 0.2)
    hanging, release = threading.Event(), threading.Event()

    def hang(*_args: object, **_kwargs: object) -> list[Measurement]:
        hanging.set()
        release.wait(60)
        return []

    monkeypatch.setattr(loop, "measure_hosts", hang)
    monitor = NetworkMonitor(["a"], csv_path=tmp_path / "m.csv").start()
    assert hanging.wait(60)
    thread = monitor._thread
    monitor.stop()
    monitor.stop()
    assert thread is not None
    assert thread.is_alive(), "it waited until the measurement ended"
    release.set()
    thread.join(60)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # Python 3.12 and newer
def test_in_a_forked_child_it_is_stopped(hosts: Hosts, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    with NetworkMonitor(["a"], every_cycles=1, csv_path=path) as monitor:
        wait_until(lambda: len(rows(path)) == 1, "row 1 is there")
        with monitor._wake._cond:  # type: ignore[attr-defined]  # as if the loop's thread were waiting just now
            pid = os.fork()
            if pid == 0:
                monitor.cycle(1)
                monitor.start()
                monitor.stop()
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        monitor.cycle(2)
        wait_until(lambda: len(rows(path)) == 2, "row 2 is there")
