"""
Typed reader of the stream of results.

Reads in small pages: one big reply would hold every locker of the fleet. An entry that is no
measurement is logged and the reader goes on. What Redis raises passes through.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import redis

from coordinator.results.stream import (
    FIRST_PAGE,
    START,
    Entry,
    Pages,
    Patience,
    entries_between,
    fields_of,
    last_id,
    wait_for_more,
)
from worker.model.errors import WireError
from worker.model.measurement import Measurement
from worker.model.names import RunId
from worker.wire.connection.away import AWAY
from worker.wire.event import is_event

logger = logging.getLogger(__name__)


def log_bad(stream_id: str, why: WireError) -> None:
    """Log that an entry was set aside."""
    logger.warning("entry %s is set aside: %s", stream_id, why)


def read(
    connection: redis.Redis,
    *,
    run: RunId | None = None,
    after: str = START,
    until: str = "+",
) -> Iterator[tuple[str, Measurement]]:
    """Yield the results, or one run's, behind `after` up to `until`, with the entries' ids."""
    for entries in pages_until_end(connection, after, until):
        yield from measurements_in(entries, run)


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
    run: RunId | None = None,
    after: str | None = None,
) -> Iterator[tuple[str, Measurement]]:
    """Yield results, or one run's, as they arrive: see `pages_as_they_come`."""
    for entries in pages_as_they_come(connection, should_stop, after):
        yield from measurements_in(entries, run)


def pages_as_they_come(
    connection: redis.Redis, should_stop: Callable[[], bool], after: str | None = None
) -> Iterator[list[Entry]]:
    """
    Yield what arrives behind `after`, None being now; a Redis that goes away is waited for.

    Ends when `should_stop`, which is asked about once a second.
    """
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
    """Return whether the stream holds a few events up to there, and nothing else."""
    first = entries_between(connection, "-", until, FIRST_PAGE)
    return 0 < len(first) < FIRST_PAGE and all(is_event(fields_of(entry)) for entry in first)


def measurements_in(
    entries: list[Entry], run: RunId | None = None
) -> Iterator[tuple[str, Measurement]]:
    """Yield the measurements of a page, or of one run in it."""
    wanted = None if run is None else run.encode()
    for entry in entries:
        fields, stream_id = fields_of(entry), entry[0].decode()
        if is_event(fields) or (wanted is not None and fields.get(b"run") != wanted):
            continue
        try:
            measurement = Measurement.from_fields(fields)
        except WireError as exc:
            log_bad(stream_id, exc)
            continue
        yield stream_id, measurement
