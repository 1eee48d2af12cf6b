"""
Puts records into the results stream exactly once: `lua/record.lua`, ten a call.

A recorder's records are numbered, and Redis keeps the last number that it has: what is sent again
because an answer was lost is not added again. Nothing is added to a full stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import redis

from worker.model.names import RunId
from worker.monitor.records.record import RUN_PREFIX, Entry
from worker.wire import keyspace
from worker.wire.room import add_results

#: A script holds every locker in the fleet: 10 entries stay well within a millisecond.
BATCH = 10
#: A recorder that has said nothing for so long may double what it then sends again.
SEQUENCE_TTL_S = 7 * 24 * 3600


class RecordStream:
    """The stream as one recorder sees it."""

    def __init__(self, connection: redis.Redis, recorder: str) -> None:
        """Add records of `recorder`."""
        self.recorder = recorder
        self._connection = connection

    def add(self, entries: Sequence[Entry]) -> int:
        """
        Add at most `BATCH` records, in rising order of their numbers.

        Returns:
            How many were added; the others are in already.

        Raises:
            StreamFull: There is no room; none was added.
            redis.RedisError: Whether they are in is unknown: add them again.
        """
        keys = [keyspace.sequence_key(self.recorder)]
        arguments = [SEQUENCE_TTL_S, *_arguments(entries)]
        _, added, _ = add_results(self._connection, "record", len(entries), keys, arguments)
        return added


def run_of(recorder: str) -> RunId:
    """Give what stands in the run field of a recorder's records."""
    return RunId(f"{RUN_PREFIX}{recorder}")


def _arguments(entries: Sequence[Entry]) -> Iterator[Any]:
    for entry in entries:
        fields = entry.measurement.to_fields()
        yield entry.sequence
        yield 2 * len(fields)
        for name, value in fields.items():
            yield name
            yield value
