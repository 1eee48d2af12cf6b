"""
The monitor's way to Redis, used by the recorder's thread only.

Opens its connection when it is first used, says once that Redis is away and once that it is back.
"""

from __future__ import annotations

from collections.abc import Sequence

import redis

from worker.model.errors import ConfigError
from worker.monitor.guard import forget, tell, tell_failure
from worker.monitor.lockers.notes import note
from worker.monitor.records.record import LOCKER, Entry
from worker.monitor.records.stream import RecordStream
from worker.wire.connection import server
from worker.wire.room import StreamFull, no_room

#: Key of the one message that records are not published.
PUBLISHING = "stream"


class Link:
    """One recorder's connection to Redis."""

    def __init__(self, url: str | None, recorder: str) -> None:
        """Prepare; nothing is opened yet."""
        self.url, self.recorder = url, recorder
        self._connection: redis.Redis | None = None
        self._stream: RecordStream | None = None

    @property
    def connection(self) -> redis.Redis:
        """
        The connection.

        Raises:
            ConfigError: There is no Redis URL, or it is invalid.
        """
        if self._connection is None:
            if self.url is None:
                raise ConfigError("no Redis is configured; set PTZMESH_REDIS_URL")
            self._connection = server.connect(self.url)
        return self._connection

    def send(self, entries: Sequence[Entry]) -> bool:
        """Publish a batch; False when it must be tried again."""
        try:
            self._publish(entries)
        except ConfigError as exc:
            tell(PUBLISHING, "monitor: records are not published: %s", exc)
            return False
        except StreamFull as exc:
            tell(PUBLISHING, "monitor: records are kept: %s", no_room(exc))
            return False
        except redis.RedisError as exc:
            reason = server.unavailable(exc, self.url or "")
            tell(PUBLISHING, "monitor: records are kept in memory: %s", reason)
            return False
        except Exception as exc:  # what cannot be encoded must not hold up what can
            tell_failure("publishing", exc)
        forget(PUBLISHING)
        return True

    def _publish(self, entries: Sequence[Entry]) -> None:
        if self._stream is None:
            self._stream = RecordStream(self.connection, self.recorder)
        # First, as a full stream is no reason to hide who holds a locker.
        note(self.connection, [e.measurement for e in entries if e.measurement.probe == LOCKER])
        self._stream.add(entries)
