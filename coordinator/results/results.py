"""
Typed reader of the stream of results.

Reads in small pages: one big reply would hold every locker of the fleet. An entry that is no
measurement is given to `on_bad` and the reader goes on. What Redis raises passes through.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import cast

import redis

from coordinator.results.stream import (
    FIRST_PAGE,
    START,
    Entry,
    Pages,
    Patience,
    last_id,
    wait_for_more,
)
from worker.model.errors import WireError
from worker.model.event import is_event
from worker.model.measurement import Measurement
from worker.wire import keyspace
from worker.wire.connection.away import AWAY

logger = logging.getLogger(__name__)

OnBad = Callable[[str, Mapping[bytes, bytes], WireError], None]


def log_bad(stream_id: str, _fields: Mapping[bytes, bytes], why: WireError) -> None:
    """Say that an entry was set aside."""
    logger.warning("entry %s is set aside: %s", stream_id, why)


def read(
    connection: redis.Redis,
    *,
    run: str | None = None,
    after: str = START,
    until: str = "+",
    on_bad: OnBad = log_bad,
) -> Iterator[tuple[str, Measurement]]:
    """
    Yield what the stream holds, oldest first, with the entries' ids.

    Args:
        connection: To a Redis.
        run: Only this run's results.
        after: Begin after this stream id.
        until: End with this stream id; `+` is the end of the stream.
        on_bad: Called with what is no measurement.
    """
    for entries in pages_until_end(connection, after, until):
        yield from measurements_in(entries, run, on_bad)


def pages_until_end(
    connection: redis.Redis, after: str = START, until: str = "+"
) -> Iterator[list[Entry]]:
    """Yield what the stream holds behind `after`, page by page."""
    pages = Pages(connection)
    while not pages.at_end:
        entries = pages.after(after, until)
        yield entries
        after = entries[-1][0].decode() if entries else after


def follow(
    connection: redis.Redis,
    should_stop: Callable[[], bool],
    *,
    run: str | None = None,
    after: str | None = None,
    on_bad: OnBad = log_bad,
) -> Iterator[tuple[str, Measurement]]:
    """
    Yield results as they arrive, until told to stop; a Redis that goes away is waited for.

    Args:
        connection: To a Redis.
        should_stop: Asked about once a second.
        run: Only this run's results.
        after: Begin after this stream id; None begins now.
        on_bad: Called with what is no measurement.
    """
    for entries in pages_as_they_come(connection, should_stop, after):
        yield from measurements_in(entries, run, on_bad)


def pages_as_they_come(
    connection: redis.Redis, should_stop: Callable[[], bool], after: str | None = None
) -> Iterator[list[Entry]]:
    """Yield what arrives behind `after`, None being now, until told to stop; Redis may go away."""
    pages, patience = Pages(connection), Patience(should_stop)
    position = last_id(connection) if after is None else after
    while not should_stop():
        try:
            entries = pages.after(position)
            if not entries:
                wait_for_more(connection, position)
        except AWAY as exc:
            patience.wait(exc)
            continue
        patience.over()
        yield entries
        position = entries[-1][0].decode() if entries else position


def are_events(connection: redis.Redis, until: str = "+") -> bool:
    """Tell whether the stream holds a few events up to there, and nothing else."""
    found = cast("list[Entry]", connection.xrange(keyspace.RESULTS, "-", until, count=FIRST_PAGE))
    return 0 < len(found) < FIRST_PAGE and all(is_event(fields) for _, fields in found)


def measurements_in(
    entries: list[Entry], run: str | None, on_bad: OnBad
) -> Iterator[tuple[str, Measurement]]:
    """Yield the measurements of a page, or of one run in it."""
    wanted = None if run is None else run.encode()
    for stream_id, fields in entries:
        if is_event(fields) or (wanted is not None and fields.get(b"run") != wanted):
            continue
        try:
            measurement = Measurement.from_fields(fields)
        except WireError as exc:
            on_bad(stream_id.decode(), fields, exc)
            continue
        yield stream_id.decode(), measurement
