"""The collector when Redis was away, came back empty, or went back in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from samples import fields_of, file_rows, fill, measurement, stream_rows
from waiting import wait_until

from coordinator.collect.collector import Collector
from coordinator.collect.csvfile import CsvFile
from coordinator.collect.cursor import Cursor
from coordinator.collect.groups import collectors, default_group, forget
from coordinator.embedded import EmbeddedServer
from coordinator.results.stream import START, Pages
from integration.collecting import following, last_id, position
from worker.model.record.csv_line import csv_lines
from worker.wire import keyspace
from worker.wire.connection.server import connect

pytestmark = pytest.mark.redis


def return_empty(server: EmbeddedServer) -> None:
    """Kill a server, take its disk away, and start it again."""
    server.kill()
    for file in sorted(server.home.rglob("*append*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    server.start()


@contextmanager
def following_from_20(url: str, csv_path: Path, connection: redis.Redis) -> Iterator[Collector]:
    """Follow into a file that has the first twenty rows, until the block ends."""
    with following(url, csv_path) as collector:
        fill(connection, 20)
        wait_until(lambda: collector.rows == 20, "the file has 20 rows")
        yield collector


def test_following_goes_on_when_redis_returns_with_its_data(
    redis_server: EmbeddedServer, csv_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(redis_server.url) as connection:
        with following_from_20(redis_server.url, csv_path, connection) as collector:
            redis_server.kill()
            wait_until(lambda: "Redis is away" in caplog.text, "it says that Redis is away")
            redis_server.start()
            fill(connection, 20, first=20)
            wait_until(lambda: collector.rows == 40, "the file has 40 rows")
        assert file_rows(csv_path) == stream_rows(connection)
        assert caplog.text.count("Redis is away") == 1
        assert position(connection, csv_path) == last_id(csv_path)


def test_following_goes_on_when_redis_returns_empty(
    redis_server: EmbeddedServer, csv_path: Path
) -> None:
    with connect(redis_server.url) as connection:
        with following_from_20(redis_server.url, csv_path, connection) as collector:
            return_empty(redis_server)
            fill(connection, 20, first=20)
            wait_until(lambda: collector.rows == 40, "the file has 40 rows")
        assert file_rows(csv_path)[20:] == stream_rows(connection)
        assert position(connection, csv_path) == last_id(csv_path)


def test_new_rows_are_not_skipped_when_redis_returns_empty_with_its_clock_back(
    redis_server: EmbeddedServer, csv_path: Path
) -> None:
    with connect(redis_server.url) as connection:
        with following_from_20(redis_server.url, csv_path, connection) as collector:
            return_empty(redis_server)
            connection.xadd(keyspace.RESULTS, fields_of(7), id="1000-0")  # sent again: is there
            for number in range(20, 40):
                connection.xadd(keyspace.RESULTS, fields_of(number), id=f"{980 + number}-1")
            wait_until(lambda: collector.rows == 40, "the file has 40 rows")
            fill(connection, 5, first=40)
            wait_until(lambda: collector.rows == 45, "the file has 45 rows")
        times = [row[0] for row in file_rows(csv_path)]
        assert times == [measurement(n).to_row("")[0] for n in range(45)]
        Collector(connection, csv_path).drain()
        assert len(file_rows(csv_path)) == 45


def test_stream_that_went_back_while_no_collector_ran(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 20)
    Collector(connection, csv_path).drain()
    connection.delete(keyspace.RESULTS)
    for number in range(15, 30):
        connection.xadd(keyspace.RESULTS, fields_of(number), id=f"{number}-1")
    for _ in range(2):
        Collector(connection, csv_path).drain()
        times = [row[0] for row in file_rows(csv_path)]
        assert times == [measurement(n).to_row("")[0] for n in range(30)]


def test_group_destroyed_while_following_is_made_again(redis_url: str, csv_path: Path) -> None:
    with (
        connect(redis_url) as connection,
        following_from_20(redis_url, csv_path, connection) as collector,
    ):
        wait_until(
            lambda: position(connection, csv_path) == last_id(csv_path), "Redis knows the last row"
        )
        forget(connection, collector.group)
        fill(connection, 20, first=20)
        wait_until(lambda: collector.rows == 40, "the file has 40 rows")
        wait_until(lambda: bool(collectors(connection)), "the collector is known again")
        wait_until(
            lambda: position(connection, csv_path) == last_id(csv_path), "Redis knows the last row"
        )
        assert file_rows(csv_path) == stream_rows(connection)


def test_data_lost_between_reading_and_acknowledging_hides_no_row(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 5)
    Collector(connection, csv_path).drain()
    with CsvFile(csv_path) as file:
        cursor = Cursor(connection, default_group(csv_path), file)
        cursor.begin()
        connection.delete(keyspace.RESULTS)
        connection.xadd(keyspace.RESULTS, fields_of(6), id="5-1")  # the clock was back for a while
        fill(connection, 1, first=7)
        (entry,) = Pages(connection).after(cursor.position)
        file.append([csv_lines([measurement(7).to_row(entry[0].decode())])])
        cursor.passed(entry, 1)
        assert cursor.position == START
        left = cursor.unseen(Pages(connection).after(cursor.position))
        assert [stream_id for stream_id, _ in left] == [b"5-1"]
