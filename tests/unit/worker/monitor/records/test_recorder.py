"""Records wait within bounds, go to a file once, and belong to one process."""

from __future__ import annotations

import csv
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from worker.monitor import process
from worker.monitor.records import metrics_csv
from worker.monitor.records.recorder import Recorder
from worker.monitor.settings import MonitorSettings

from .made import ping


def recorder(path: Path, *, most: int = 100) -> Recorder:
    return Recorder(MonitorSettings(source="cam-7", csv_path=path), max_records=most)


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_record_is_written_once_however_often_it_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    made = recorder(path)
    for number in range(10):
        made.add(ping(number))
        made.save_csv()
        made.save_csv()
    assert len(lines(path)) == 10
    assert {row["source"] for row in lines(path)} == {"cam-7"}
    assert {row["run_id"] for row in lines(path)} == {f"monitor-{made.id}"}


def test_records_of_one_target_are_told_apart_by_their_time(tmp_path: Path) -> None:
    made = recorder(tmp_path / "m.csv")
    times = [made.add(ping()).started_at for _ in range(50)]
    assert len(set(times)) == 50
    assert times == sorted(times)


def test_memory_is_bounded_and_the_newest_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = recorder(tmp_path / "no" / "m.csv", most=20)
    (tmp_path / "no").write_text("a file where the folder should be")
    made.save_csv()
    for number in range(100):
        made.add(ping(number))
    assert (len(made._for_csv), len(made._for_stream)) == (20, 0)
    assert made.dropped == 80
    made.save_csv(tmp_path / "m.csv")
    assert len(lines(tmp_path / "m.csv")) == 20
    assert caplog.text.count("the oldest go") == 1


def test_an_unwritable_place_is_one_warning_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "persistence" / "m.csv"
    path.parent.write_text("not a folder")
    made = recorder(path)
    for number in range(5):
        made.add(ping(number))
        assert made.save_csv() == 0
    assert caplog.text.count("cannot be written") == 1
    path.parent.unlink()
    assert made.save_csv() == 5
    assert len(lines(path)) == 5


def test_what_comes_while_a_file_is_written_is_written_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, append = recorder(tmp_path / "m.csv"), metrics_csv.append

    def meanwhile(path: Path, measurements: list[object]) -> int:
        made.add(ping(99))
        return append(path, measurements)  # type: ignore[arg-type]  # handed through

    made.add(ping(1))
    monkeypatch.setattr(metrics_csv, "append", meanwhile)
    assert made.save_csv() == 1
    monkeypatch.undo()
    assert made.save_csv() == 1


def test_many_threads_lose_and_double_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, forget = recorder(tmp_path / "m.csv", most=10_000), Recorder._forget_up_to

    def late(*args: Any) -> None:
        time.sleep(0.005)  # another thread saves meanwhile, if it may
        forget(*args)

    monkeypatch.setattr(Recorder, "_forget_up_to", late)

    def work() -> None:
        for number in range(200):
            made.add(ping(number))
            if number % 50 == 0:
                made.save_csv()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made.save_csv()
    found = lines(tmp_path / "m.csv")
    assert len(found) == len({row["timestamp"] for row in found}) == 1000


def test_without_redis_nothing_waits_for_it_and_no_thread_runs(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    made = recorder(tmp_path / "m.csv")
    made.add(ping())
    assert (len(made._for_csv), len(made._for_stream)) == (1, 0)
    assert set(threading.enumerate()) <= before


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # Python 3.12 and newer
def test_a_forked_child_does_not_write_its_parents_records(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    process.configure(csv_path=path)
    parent = process.recorder()
    parent.add(ping(1))
    with parent._lock, parent._csv_lock:  # as if another thread were at it
        pid = os.fork()
        if pid == 0:
            child = process.recorder()
            child.add(ping(2))
            ok = child.id != parent.id and child.save_csv() == 1
            os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert parent.save_csv() == 1
    runs = [row["run_id"] for row in lines(path)]
    assert len(runs) == len(set(runs)) == 2


def test_configure_keeps_what_waits(tmp_path: Path) -> None:
    process.recorder().add(ping(1))
    process.configure(csv_path=tmp_path / "m.csv", source="other")
    process.recorder().add(ping(2))
    assert process.recorder().save_csv() == 2
    assert [row["source"] for row in lines(tmp_path / "m.csv")] == ["cam-7", "other"]


def test_what_waits_is_saved_as_the_process_ends(tmp_path: Path) -> None:
    process.configure(csv_path=tmp_path / "m.csv")
    process.recorder().save_csv()
    process.recorder().add(ping(1))
    process._finish()
    assert len(lines(tmp_path / "m.csv")) == 1


def test_a_process_that_saved_to_no_file_leaves_none(tmp_path: Path) -> None:
    process.configure(csv_path=tmp_path / "m.csv")
    process.recorder().add(ping(1))
    process._finish()
    assert not (tmp_path / "m.csv").exists()
