"""A CSV that is rotated under its collector: each result is in one file, once."""

from __future__ import annotations

import csv
import gzip
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from missing import missing
from samples import fields_of, fill, stream_rows
from samples import file_rows as rows_of
from waiting import wait_until

from coordinator.collect.collector import COMMIT_ROWS, Collector
from coordinator.collect.csvfile import HEADER, CsvFile
from coordinator.collect.groups import default_group, forget, set_group
from coordinator.collect.rotated import _lines
from integration.collecting import following
from integration.nodes import cli
from worker.model.record.csv_line import csv_lines
from worker.wire import keyspace
from worker.wire.connection import server

pytestmark = pytest.mark.redis


def move(path: Path, to: Path) -> None:
    path.rename(to)


def create(path: Path, to: Path) -> None:
    path.rename(to)
    path.touch()


def copy_and_truncate(path: Path, to: Path) -> None:
    shutil.copy(path, to)
    with path.open("r+") as file:
        file.truncate(0)


def compress(path: Path, to: Path) -> None:
    with gzip.open(to.with_name(f"{to.name}.gz"), "wb") as file:
        file.write(path.read_bytes())
    path.unlink()


Rotate = Callable[[Path, Path], None]
WAYS = [move, create, copy_and_truncate, compress]
NAMES = ["network_metrics.csv.1", "network_metrics.csv-20261129", "network_metrics-20261129.csv"]
#: `dateformat` -%Y-%m-%d, -%d-%m-%Y and -%Y%m%d-%s, and `extension .csv`.
MORE_NAMES = [
    "network_metrics.csv-2026-11-29", "network_metrics.csv-29-11-2026",
    "network_metrics.csv-20261129-1796000000", "network_metrics.1.csv",
]  # fmt: skip


@pytest.mark.parametrize("rotate", WAYS)
def test_rotated_between_two_drains(
    connection: redis.Redis, csv_path: Path, rotate: Rotate
) -> None:
    fill(connection, 20)
    Collector(connection, csv_path).drain()
    rotate(csv_path, csv_path.with_name(NAMES[0]))
    fill(connection, 15, first=20)
    for _ in range(2):
        Collector(connection, csv_path).drain()
        assert rows_of(csv_path) == stream_rows(connection)[20:]


@pytest.mark.parametrize("rotate", WAYS)
def test_rotated_while_it_is_followed(redis_url: str, csv_path: Path, rotate: Rotate) -> None:
    with server.connect(redis_url) as connection, following(redis_url, csv_path) as collector:
        fill(connection, 20)
        wait_until(lambda: collector.rows == 20, "the file has 20 rows")
        rotate(csv_path, csv_path.with_name(NAMES[0]))
        fill(connection, 15, first=20)
        wait_until(lambda: collector.rows == 35, "the file has 35 rows")
        assert rows_of(csv_path) == stream_rows(connection)[20:]


def packed_rows(path: Path) -> list[list[str]]:
    text = gzip.decompress(path.with_name(f"{NAMES[0]}.gz").read_bytes()).decode()
    return list(csv.reader(text.splitlines()))[1:]


def test_compressed_and_removed_while_much_is_collected(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 2 * COMMIT_ROWS + 100)
    turns = iter([lambda _: compress(csv_path, csv_path.with_name(NAMES[0]))])
    Collector(
        connection, csv_path, on_commit=lambda rows: next(turns, lambda _: None)(rows)
    ).drain()
    assert packed_rows(csv_path) + rows_of(csv_path) == stream_rows(connection)
    assert rows_of(csv_path)


@pytest.mark.parametrize(("rotate", "kept"), [(move, True), (compress, False)])
def test_what_goes_into_a_file_that_is_being_removed_is_not_kept(
    csv_path: Path, rotate: Rotate, kept: bool
) -> None:
    with CsvFile(csv_path) as file:
        assert file.is_kept()
        rotate(csv_path, csv_path.with_name(NAMES[0]))
        assert not file.is_in_place()
        assert file.is_kept() is kept


def test_the_file_of_another_collector_is_no_earlier_one(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 20)
    for name in ("network_metrics-1.csv", "network_metrics-20261129.csv", csv_path.name):
        Collector(connection, csv_path.with_name(name)).drain()
    assert rows_of(csv_path) == stream_rows(connection)


def test_compressed_by_another_program_is_told(
    connection: redis.Redis, csv_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(connection, 5)
    csv_path.with_name(f"{NAMES[0]}.xz").write_bytes(b"what xz has made of it")
    Collector(connection, csv_path).drain()
    assert "cannot be read, rows of it may come again" in caplog.text


def test_earlier_file_that_is_removed_just_now_is_passed_over(csv_path: Path) -> None:
    assert not list(_lines(csv_path.with_name(NAMES[0])))


def test_collectors_whose_names_are_no_text_stop_no_other(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 5)
    connection.xgroup_create(keyspace.RESULTS, b"\xff\xfe", "0")
    Collector(connection, csv_path).drain()
    assert rows_of(csv_path) == stream_rows(connection)


@pytest.mark.parametrize("name", [*NAMES, *MORE_NAMES])
@pytest.mark.parametrize("rotate", [move, compress])
def test_rotated_after_a_crash_between_the_disk_and_redis(
    connection: redis.Redis, csv_path: Path, name: str, rotate: Rotate
) -> None:
    fill(connection, 20)
    Collector(connection, csv_path).drain()
    place = stream_rows(connection)[9][-1]
    set_group(connection, default_group(csv_path), place)
    rotate(csv_path, csv_path.with_name(name))
    fill(connection, 5, first=20)
    Collector(connection, csv_path).drain()
    assert rows_of(csv_path) == stream_rows(connection)[20:]


def test_rotated_and_then_redis_comes_back_with_an_older_copy(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 20)
    group = default_group(csv_path)
    Collector(connection, csv_path).drain()
    older = stream_rows(connection)
    move(csv_path, csv_path.with_name(NAMES[0]))
    fill(connection, 5, first=20)
    Collector(connection, csv_path).drain()
    # As it was before the last five; and before the group had passed the second ten.
    connection.xtrim(keyspace.RESULTS, maxlen=0, approximate=False)
    connection.delete(keyspace.RESULTS)
    for number in range(20):
        connection.xadd(keyspace.RESULTS, fields_of(number), id=older[number][-1])
    connection.xgroup_create(keyspace.RESULTS, group, older[9][-1])
    fill(connection, 5, first=25)
    Collector(connection, csv_path).drain()
    numbers = [row[0] for row in rows_of(csv_path)]
    assert len(numbers) == len(set(numbers)) == 10
    assert not set(numbers) & {row[0] for row in rows_of(csv_path.with_name(NAMES[0]))}


def test_forgotten_while_it_is_followed_after_a_rotation(redis_url: str, csv_path: Path) -> None:
    with server.connect(redis_url) as connection, following(redis_url, csv_path) as collector:
        fill(connection, 20)
        wait_until(lambda: collector.rows == 20, "the file has 20 rows")
        csv_path.unlink()
        fill(connection, 5, first=20)
        wait_until(lambda: collector.rows == 25, "the file has 25 rows")
        forget(connection, collector.group)
        fill(connection, 5, first=25)
        wait_until(lambda: collector.rows == 30, "the file has 30 rows")
        assert rows_of(csv_path) == stream_rows(connection)[20:]


def test_truncated_between_a_look_and_a_write(csv_path: Path) -> None:
    with CsvFile(csv_path) as file:
        row = [str(number) for number in range(len(file.columns) - 1)]
        file.append([csv_lines([[*row, "1-0"]])])
        csv_path.write_bytes(b"")
        file.append([csv_lines([[*row, "2-0"]])])
        assert file.is_in_place()
    with CsvFile(csv_path) as file:
        assert file.cursor == "2-0"
    assert csv_path.read_bytes().startswith(HEADER)
    assert len(rows_of(csv_path)) == 1


def test_damaged_earlier_file_is_passed_over(
    connection: redis.Redis, csv_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(connection, 5)
    csv_path.with_name(f"{NAMES[0]}.gz").write_bytes(b"\x1f\x8b no gzip")
    csv_path.with_name(NAMES[1]).write_bytes(b"some,thing\nelse")
    Collector(connection, csv_path).drain()
    assert rows_of(csv_path) == stream_rows(connection)
    assert "cannot be read" in caplog.text


def test_all_of_it_again_where_a_person_asks_for_it(
    connection: redis.Redis, redis_url: str, csv_path: Path
) -> None:
    fill(connection, 20)
    Collector(connection, csv_path).drain()
    move(csv_path, csv_path.with_name(NAMES[0]))
    done = cli(redis_url, "collect", "--csv", str(csv_path), "--from-start")
    assert done.returncode == 0, done.stderr
    assert rows_of(csv_path) == stream_rows(connection)


@pytest.mark.parametrize("mode", ["create", "copytruncate"])
def test_logrotate_itself(connection: redis.Redis, csv_path: Path, mode: str) -> None:
    if shutil.which("logrotate") is None:
        missing("logrotate is not installed")
    configuration = csv_path.with_name("conf")
    configuration.write_text(f'"{csv_path}" {{\n  rotate 3\n  {mode}\n  su root root\n}}\n')
    configuration.chmod(0o644)
    wanted = []
    for turn in range(3):
        fill(connection, 7, first=7 * turn)
        Collector(connection, csv_path).drain()
        wanted.append(rows_of(csv_path))
        state = str(csv_path.with_name("state"))
        command = ["logrotate", "--force", "--state", state, str(configuration)]
        subprocess.run(command, check=True, capture_output=True)
    assert [row for rows in wanted for row in rows] == stream_rows(connection)
