"""A collector that follows: rows come as results do, and once, however often it is killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import redis
from samples import file_rows, fill, stream_rows
from waiting import wait_until

from coordinator.collect.collector import Collector
from coordinator.collect.csvfile import HEADER
from coordinator.results.stream import last_id as newest
from integration.collecting import following, position
from worker.model.errors import ConfigError
from worker.wire.connection.server import connect

pytestmark = pytest.mark.redis

FOLLOW = """
import pathlib, sys
from coordinator.collect.collector import Collector
from worker.wire.connection import server
Collector(server.connect(sys.argv[1]), pathlib.Path(sys.argv[2])).follow(lambda: False)
"""


def has_rows(collector: Collector, rows: int) -> bool:
    return collector.rows == rows


def test_second_writer_is_refused(redis_url: str, csv_path: Path) -> None:
    with following(redis_url, csv_path), connect(redis_url) as connection:
        wait_until(
            lambda: csv_path.exists() and csv_path.read_bytes() == HEADER, "the file has its header"
        )
        with pytest.raises(ConfigError, match="another process collects"):
            Collector(connection, csv_path).drain()


@pytest.mark.parametrize("seed", [*(pytest.param(n, marks=pytest.mark.long) for n in (1, 2)), 3])
def test_killed_again_and_again_no_row_is_lost_or_doubled(
    redis_url: str, connection: redis.Redis, csv_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    fill(connection, 15_000)

    def produce() -> None:
        with connect(redis_url) as mine:
            for first in range(15_000, 30_000, 100):
                fill(mine, 100, first=first)

    producer = threading.Thread(target=produce)
    producer.start()
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", FOLLOW, redis_url, str(csv_path)])
        wait_until(
            partial(grew_or_is_whole, connection, csv_path, size_of(csv_path)),
            "the file grows, or has all",
        )
        time.sleep(rng.uniform(0, 0.1))  # the moment of the kill is what is random here
        child.send_signal(signal.SIGKILL)
        child.wait()
    producer.join()
    Collector(connection, csv_path).drain()
    assert file_rows(csv_path) == stream_rows(connection)
    assert len(file_rows(csv_path)) == 30_000


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def grew_or_is_whole(connection: redis.Redis, path: Path, size: int) -> bool:
    grew = size_of(path) > max(size, len(HEADER))
    return grew or newest(connection) == position(connection, path)


def test_following_collects_as_results_come(redis_url: str, csv_path: Path) -> None:
    with connect(redis_url) as connection, following(redis_url, csv_path) as collector:
        for batch in range(5):
            fill(connection, 10, first=10 * batch)
            wait_until(
                partial(has_rows, collector, 10 * batch + 10), f"batch {batch} is in the file"
            )
        assert file_rows(csv_path) == stream_rows(connection)


def test_following_a_redis_that_is_not_there_is_told_at_once(csv_path: Path) -> None:
    with (
        connect("unix:///nonexistent.sock") as connection,
        pytest.raises(redis.ConnectionError),
    ):
        Collector(connection, csv_path).follow(lambda: False)


def test_file_deleted_while_following_goes_on_with_the_rows_that_come_after(
    redis_url: str, csv_path: Path
) -> None:
    with connect(redis_url) as connection, following(redis_url, csv_path) as collector:
        fill(connection, 20)
        wait_until(lambda: collector.rows == 20, "the file has 20 rows")
        csv_path.unlink()
        fill(connection, 1, first=20)
        wait_until(lambda: collector.rows == 21, "the file has 21 rows")
        assert file_rows(csv_path) == stream_rows(connection)[20:]


def test_file_replaced_while_following_is_opened_again(
    redis_url: str, csv_path: Path, tmp_path: Path
) -> None:
    with connect(redis_url) as connection, following(redis_url, csv_path) as collector:
        fill(connection, 10)
        wait_until(lambda: collector.rows == 10, "the file has 10 rows")
        other = tmp_path / "edited"
        other.write_bytes(b"".join(csv_path.read_bytes().splitlines(keepends=True)[:6]))
        other.replace(csv_path)
        fill(connection, 10, first=10)
        wait_until(lambda: len(file_rows(csv_path)) == 20, "the file has 20 rows")
        assert file_rows(csv_path) == stream_rows(connection)
