"""
The monitor's way to Redis, used by the recorder's thread only: records enter the stream once.

A recorder's records are numbered, and Redis keeps the last number that it has: what is sent again
because an answer was lost is not added again. Nothing is added to a full stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import redis

from worker.model.errors import ConfigError
from worker.monitor.guard import forget, log_failure, log_once
from worker.monitor.lockers.notes import note
from worker.monitor.records.record import LOCKER, Entry
from worker.wire import keyspace
from worker.wire.connection import server
from worker.wire.room import StreamFull, add_entries, no_room

#: A script holds every locker in the fleet: 10 entries stay well within a millisecond.
BATCH = 10
#: A recorder that was silent for longer may double what it then sends again.
SEQUENCE_TTL_S = 7 * 24 * 3600
#: Key of the one message that records are not published.
PUBLISHING = "stream"


class Link:
    """One recorder's connection to Redis, opened when it is first used."""

    def __init__(self, url: str, recorder: str) -> None:
        """Publish the records of `recorder`."""
        self.url, self.recorder = url, recorder
        self._connection: redis.Redis | None = None

    def send(self, entries: Sequence[Entry]) -> bool:
        """Publish a batch; False when it must be tried again, which is logged once."""
        try:
            self._connection = self._connection or server.connect(self.url)
            # First, as a full stream is no reason to hide who holds a locker.
            note(
                self._connection, [e.measurement for e in entries if e.measurement.probe == LOCKER]
            )
            add_records(self._connection, self.recorder, entries)
        except ConfigError as exc:
            log_once(PUBLISHING, "monitor: records are not published: %s", exc)
            return False
        except StreamFull as exc:
            log_once(PUBLISHING, "monitor: records are kept: %s", no_room(exc))
            return False
        except redis.RedisError as exc:
            reason = server.unavailable(exc, self.url)
            log_once(PUBLISHING, "monitor: records are kept in memory: %s", reason)
            return False
        except Exception as exc:  # what cannot be encoded must not hold up what can
            log_failure("publishing", exc)
        forget(PUBLISHING)
        return True


def add_records(connection: redis.Redis, recorder: str, entries: Sequence[Entry]) -> int:
    """
    Add at most `BATCH` records, in rising order of their numbers: `lua/record.lua`.

    Returns:
        How many were added; the others are in already.

    Raises:
        StreamFull: There is no room; none was added.
        redis.RedisError: Whether they are in is unknown: add them again.
    """
    keys = [keyspace.sequence_key(recorder)]
    fields = [entry.measurement.to_fields() for entry in entries]
    arguments = [SEQUENCE_TTL_S, *(entry.sequence for entry in entries)]
    _, added, _ = add_entries(connection, "record", fields, keys, arguments)
    return added
