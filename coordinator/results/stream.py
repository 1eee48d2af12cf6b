"""The stream of results, page by page."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from itertools import chain, repeat
from typing import Any, cast

import msgpack
import redis
from redis.exceptions import NoPermissionError

from worker.wire import keyspace, scripts
from worker.wire.connection.away import REFUSED
from worker.wire.round_trip import Ask, Asking, asking_sure, joined

logger = logging.getLogger(__name__)


#: The position before the first entry of the stream of results.
START = "0-0"


def last_id(connection: redis.Redis) -> str:
    """Return the id of the newest result, `START` when there is none."""
    newest = cast("list[tuple[bytes, Any]]", connection.xrevrange(keyspace.RESULTS, count=1))
    return newest[0][0].decode() if newest else START


def stream_position(stream_id: bytes | str | None) -> tuple[int, int]:
    """
    Return a stream id as numbers that compare as Redis does.

    >>> stream_position('12-9') < stream_position(b'12-10')
    True
    """
    text = stream_id.decode() if isinstance(stream_id, bytes) else stream_id or "0"
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds), int(sequence or 0)


#: An id, and names and values in turn, as Redis sends them.
Entry = tuple[bytes, list[bytes]]
#: 250 ping results of 10 echoes are 140 kB and hold Redis for 0.3 ms; XREADGROUP takes 0.5 ms.
MAX_PAGE = 250
FIRST_PAGE = 16
MAX_PAGE_BYTES = 256 * 1024
#: Of so many entries one is looked at for its size; odd, as entries of two kinds may take turns.
SAMPLED = 7
#: A page has at most so many times the entries of the one before, as a page is a round trip.
GROWTH = 16
#: So many entries at most are packed by a script, in 0.1 ms: what a small mesh gets at once. A
#: batch of 25 of a large one is sent as it is, as packing takes Redis longer than sending.
MOST_PACKED = 24
#: How long one XREAD waits; well below the socket time-out of `wire.connect`.
BLOCK_S = 1.0
FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 5.0


def fields_of(entry: Entry) -> dict[bytes, bytes]:
    """Return an entry's fields by name."""
    names_and_values = iter(entry[1])
    return dict(zip(names_and_values, names_and_values, strict=True))


def entries_between(
    connection: redis.Redis, first: str, last: str, count: int | None = None
) -> list[Entry]:
    """Return the entries from one id to another, or the first of them."""
    found = connection.execute_command(*_range(first, last, count))  # type: ignore[no-untyped-call]  # in redis-py
    return cast("list[Entry]", found)


def _range(first: str, last: str, count: int | None) -> tuple[Any, ...]:
    # By a name in bytes redis-py knows no command, and makes no dict of each entry.
    return (b"XRANGE", keyspace.RESULTS, first, last, *(() if count is None else ("COUNT", count)))


def unpacked(page: bytes) -> list[Entry]:
    """Return the entries of what `lua/page.lua` returns."""
    entries: list[Entry] = []
    for ids, names, columns in msgpack.unpackb(page, raw=True) or ():
        lists = [each if isinstance(each, list) else repeat(each) for each in columns]
        for stream_id, *values in zip(ids, *lists, strict=False):
            entries.append((stream_id, list(chain.from_iterable(zip(names, values, strict=True)))))
    return entries


def _next(position: str, count: int) -> tuple[Any, ...]:
    block_ms = int(BLOCK_S * 1000)
    return (b"XREAD", "COUNT", count, "BLOCK", block_ms, "STREAMS", keyspace.RESULTS, position)


def _queued(command: tuple[Any, ...]) -> Ask:
    def ask(pipeline: redis.client.Pipeline) -> None:
        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]  # in redis-py

    return ask


class Pages:
    """Reads the stream page by page; a page of large entries has fewer of them."""

    def __init__(self, connection: redis.Redis) -> None:
        """Begin with a small page, as nothing is known of the entries yet."""
        self.connection = connection
        self.at_end = False
        self._count = FIRST_PAGE
        self._may_pack = self._is_packed = True
        self._is_behind = False
        self._asked: tuple[Any, ...] = ()
        self._link: Any = None

    def after(self, position: str, until: str = "+") -> list[Entry]:
        """Return the next entries after `position`; sets `at_end` when there are no more yet."""
        asked, self._asked = self._asked, ()
        if asked:
            if asked == _range(f"({position}", until, self._count):
                with contextlib.suppress(redis.RedisError):
                    return self._taken(self._link.read_response())
            # Asked as always, which waits and tries again as it should.
            self._asked = asked
            self.close()
        return self._taken(entries_between(self.connection, f"({position}", until, self._count))

    def ask_ahead(self, last: Entry) -> None:
        """
        Ask for what comes after this entry, if that is much: Redis gathers it while it is awaited.

        It takes a connection of its own, until `close`. No entry changes in the stream, so it makes
        no difference when it was read.
        """
        if self.at_end or not self._is_behind:
            return
        asked = _range(f"({last[0].decode()}", "+", self._count)
        try:
            if self._link is None:
                self._link = self.connection.connection_pool.get_connection()
            self._link.send_command(*asked)
        except redis.RedisError:
            self.close()
        else:
            self._asked = asked

    def close(self) -> None:
        """Give up what was asked ahead, and leave one connection."""
        link, asked, self._link, self._asked = self._link, self._asked, None, ()
        if link is None:
            return
        pool = self.connection.connection_pool
        if asked:
            link.disconnect()  # its answer is of use to nobody
        else:
            # What is released last is taken first.
            pool.disconnect(inuse_connections=False)
        pool.release(link)

    def asking(self, position: str, *, waiting: bool) -> Asking[list[Entry]]:
        """Ask as `after` does; it may wait, at most `BLOCK_S`, until there is an entry."""
        if waiting and self._is_packed:
            try:
                return (yield from self._asking_packed(position))
            except NoPermissionError:  # who only collects calls no script
                self._is_packed = self._may_pack = False
        command = (
            _next(position, self._count) if waiting else _range(f"({position}", "+", self._count)
        )
        (answer,) = yield from asking_sure(_queued(command))
        if waiting and answer:
            # Of RESP 3, or of RESP 2.
            (answer,) = answer.values() if isinstance(answer, dict) else (answer[0][1],)
        entries = self._taken(answer or [])
        self._is_packed = self._may_pack and len(entries) < MOST_PACKED
        return entries

    def _asking_packed(self, position: str) -> Asking[list[Entry]]:
        """
        Ask for what is there once something is: in a quarter of the bytes.

        It costs Redis 2 µs an entry more; so it is not for many.
        """
        self._count = min(self._count, MOST_PACKED)
        _, packed = yield from joined(
            asking_sure(_queued(_next(position, 1))),
            scripts.asking(("page",), [keyspace.RESULTS], [position, self._count]),
        )
        entries = unpacked(packed)
        self._is_packed = len(entries) < MOST_PACKED
        return self._taken(entries)

    def _taken(self, entries: list[Entry]) -> list[Entry]:
        self.at_end = len(entries) < self._count
        self._is_behind = len(entries) > FIRST_PAGE
        some = entries[::SAMPLED]
        size = sum(sum(map(len, fields)) for _, fields in some)
        fitting = MAX_PAGE_BYTES * len(some) // size if size else MAX_PAGE
        self._count = max(1, min(GROWTH * self._count, fitting, MAX_PAGE))
        return entries


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
        """Wait before the next try; what waiting does not help is raised again."""
        if isinstance(exc, REFUSED):
            raise exc
        if not self._backoff_s:
            why = str(exc).partition("\n")[0] or type(exc).__name__
            logger.warning("Redis is away, trying until it is back: %s", why)
        self._backoff_s = min(MAX_BACKOFF_S, max(FIRST_BACKOFF_S, 2 * self._backoff_s))
        until = time.monotonic() + self._backoff_s
        while time.monotonic() < until and not self.should_stop():
            time.sleep(0.05)

    def over(self) -> None:
        """Note that Redis answers."""
        if self._backoff_s:
            logger.warning("Redis is back")
        self._backoff_s = 0.0
