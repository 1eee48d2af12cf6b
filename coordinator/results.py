"""
Typed reader of the stream of results.

Reads in small pages: one big reply would hold every locker of the fleet. An entry that is no
measurement is given to `on_bad` and the reader goes on. What Redis raises passes through.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import cast

import redis

from coordinator.runs import START, Run, last_id, read_run
from worker import keyspace
from worker.away import AWAY, REFUSED
from worker.errors import WireError
from worker.event import is_event
from worker.measurement import Measurement

logger = logging.getLogger(__name__)

Entry = tuple[bytes, Mapping[bytes, bytes]]
OnBad = Callable[[str, Mapping[bytes, bytes], WireError], None]

#: 250 ping results of 10 echoes are 140 kB and hold Redis for 0.3 ms; XREADGROUP takes 0.5 ms.
MAX_PAGE = 250
FIRST_PAGE = 16
MAX_PAGE_BYTES = 256 * 1024
#: How long one XREAD waits; well below the socket time-out of `wire.connect`.
BLOCK_S = 1.0
#: A clock that steps back by less than this hides no result of a run.
CLOCK_MARGIN_S = 60
FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 5.0


class Pages:
    """Reads the stream page by page; a page of large entries has fewer of them."""

    def __init__(self, connection: redis.Redis) -> None:
        """Begin with a small page, as nothing is known of the entries yet."""
        self.connection = connection
        self.at_end = False
        self._count = FIRST_PAGE

    def after(self, position: str, until: str = "+") -> list[Entry]:
        """Give the next entries after `position`; sets `at_end` when there are no more yet."""
        entries = cast(
            "list[Entry]",
            self.connection.xrange(keyspace.RESULTS, f"({position}", until, count=self._count),
        )
        self.at_end = len(entries) < self._count
        size = sum(sum(map(len, fields.values())) for _, fields in entries)
        fitting = MAX_PAGE_BYTES * len(entries) // size if size else MAX_PAGE
        self._count = max(1, min(2 * self._count, fitting, MAX_PAGE))
        return entries


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


def of_run(
    connection: redis.Redis, run: str, *, on_bad: OnBad = log_bad
) -> Iterator[tuple[str, Measurement]]:
    """
    Yield one run's results, reading only the part of the stream that was written during the run.

    By stream ids, as Redis' clock may be set: its times may be before or after those of the stream.

    Raises:
        ConfigError: There is no such run.
    """
    record = read_run(connection, run)
    until = "+"
    if record.closed is not None:
        until = record.newest or str(int((record.closed + CLOCK_MARGIN_S) * 1000))
    return read(connection, run=run, after=beginning(record), until=until, on_bad=on_bad)


def beginning(run: Run) -> str:
    """Give a stream id before all of a run's results; of an older run, by Redis' milliseconds."""
    return run.begun or f"{max(0, int((run.created - CLOCK_MARGIN_S) * 1000))}-0"


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


def wait_for_more(connection: redis.Redis, position: str) -> None:
    """Wait, at most `BLOCK_S`, until there is an entry after `position`."""
    connection.xread({keyspace.RESULTS: position}, count=1, block=int(BLOCK_S * 1000))


class Patience:
    """Waits ever longer while Redis is away, and says so once."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        """Wait no longer than until `should_stop`."""
        self.should_stop = should_stop
        self._backoff_s = 0.0

    def wait(self, exc: redis.RedisError) -> None:
        """Wait before the next try; what waiting does not mend is raised again."""
        if isinstance(exc, REFUSED):
            raise exc
        if not self._backoff_s:
            what = str(exc).partition("\n")[0] or type(exc).__name__
            logger.warning("Redis is away, trying until it is back: %s", what)
        self._backoff_s = min(MAX_BACKOFF_S, max(FIRST_BACKOFF_S, 2 * self._backoff_s))
        until = time.monotonic() + self._backoff_s
        while time.monotonic() < until and not self.should_stop():
            time.sleep(0.05)

    def over(self) -> None:
        """Note that Redis answers."""
        if self._backoff_s:
            logger.warning("Redis is back")
        self._backoff_s = 0.0


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
