"""The events that are in the stream, oldest first: what changed at the nodes, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import redis

from coordinator.results.results import log_bad, pages_as_they_come, pages_until_end
from coordinator.results.stream import START, Entry, fields_of
from worker.model.errors import WireError
from worker.wire.event import Event, is_event

Found = Iterator[tuple[str, Event]]


def read_events(connection: redis.Redis, *, after: str = START, until: str = "+") -> Found:
    """Yield what the stream holds behind a stream id, up to another, with the entries' ids."""
    return _events_in(pages_until_end(connection, after, until))


def follow_events(
    connection: redis.Redis, should_stop: Callable[[], bool], *, after: str | None = None
) -> Found:
    """Yield events as they arrive behind `after`, None being now, until told to stop."""
    return _events_in(pages_as_they_come(connection, should_stop, after))


def _events_in(pages: Iterable[list[Entry]]) -> Found:
    for entries in pages:
        for entry in entries:
            fields, stream_id = fields_of(entry), entry[0].decode()
            if not is_event(fields):
                continue
            try:
                yield stream_id, Event.from_fields(fields)
            except WireError as exc:
                log_bad(stream_id, exc)
