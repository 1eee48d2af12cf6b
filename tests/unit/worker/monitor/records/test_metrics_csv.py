"""Whole lines in a file that others write, too, whatever the disk does."""

from __future__ import annotations

import csv
import errno
import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from worker.model.csv_columns import CSV_COLUMNS
from worker.monitor.records import metrics_csv
from worker.monitor.records.metrics_csv import append
from worker.monitor.records.record import LOCKER, NETWORK, record

from .made import AT, ping

PTZJEPA_HEADER = "timestamp,host,latency_ms,packet_loss_pct,throughput_mbps\r\n"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_new_file_has_our_columns_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "persistence" / "network_metrics.csv"
    assert append(path, [ping(), ping()]) == 2
    assert append(path, [ping()]) == 1
    found = rows(path)
    assert len(found) == 3
    assert tuple(found[0]) == CSV_COLUMNS
    assert list(found[0])[:5] == PTZJEPA_HEADER.strip().split(",")
    assert (found[0]["host"], found[0]["latency_ms"]) == ("10.0.0.1", "1.5")


def test_a_file_of_the_seeds_keeps_its_columns_its_times_and_its_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "old.csv"
    path.write_bytes(f"{PTZJEPA_HEADER}2025-01-01 10:00:00,hub,1.0,0.0,\r\n".encode())
    measured = replace(ping(), probe=NETWORK, throughput_mbps=94.5)
    locker = record(probe=LOCKER, target="file_lockers:0", address="hub")
    assert append(path, [measured, locker]) == 1
    data = path.read_bytes()
    local = AT.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert data.endswith(f"\r\n{local},hub,1.5,,94.5\r\n".encode())
    assert data.count(b"\n") == data.count(b"\r\n") == 3


@pytest.mark.parametrize("content", ["a,b,c\n1,2,3\n", "timestamp,host\n", "\0\0\0"])
def test_a_file_with_other_columns_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text(content)
    with pytest.raises(OSError, match="neither ours nor PTZJEPA's"):
        append(path, [ping()])
    assert path.read_text() == content


def test_half_a_line_of_a_crash_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "torn.csv"
    append(path, [ping()])
    with path.open("a") as file:
        file.write("2026-01-02T03:0")
    append(path, [ping()])
    assert rows(path)[-1]["host"] == "10.0.0.1"
    assert len(rows(path)) == 3


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Make the kernel refuse to write beyond: what a full disk does, with another errno."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "full.csv"
    append(path, [ping()])
    before = path.read_bytes()
    with largest_file(len(before) + 20), pytest.raises(OSError, match="too large"):
        append(path, [ping()] * 3)
    assert path.read_bytes() == before
    append(path, [ping()])
    assert len(rows(path)) == 2


def test_a_file_that_a_collector_holds_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_csv, "LOCK_DEADLINE_S", 0.05)
    path = tmp_path / "held.csv"
    append(path, [ping()])
    with path.open("a") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="collector") as raised:
            append(path, [ping()])
    assert raised.value.errno == errno.EBUSY
    assert len(rows(path)) == 1


def test_a_file_system_without_locks_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_fd: int, _operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert append(tmp_path / "m.csv", [ping()]) == 1
