"""What the tests of the collector share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from samples import file_rows

from coordinator.collect.collector import Collector
from coordinator.collect.groups import default_group, group_position
from worker.model.errors import PtzmeshError
from worker.wire.connection.server import connect


@contextmanager
def following(url: str, path: Path, events: Path | None = None) -> Iterator[Collector]:
    """Follow in a thread until the block ends; its error, if any, is raised at the end."""
    stop, failed = threading.Event(), []
    with connect(url) as connection:
        collector = Collector(connection, path, events=events)

        def work() -> None:
            try:
                collector.follow(stop.is_set)
            except PtzmeshError as exc:
                failed.append(exc)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield collector
        finally:
            stop.set()
            thread.join()
    if failed:
        raise failed[0]


def position(connection: redis.Redis, path: Path) -> str | None:
    return group_position(connection, default_group(path))


def last_id(path: Path) -> str:
    return file_rows(path)[-1][-1]
