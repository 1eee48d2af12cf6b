"""
Holds: what a follower of a single run still has to read is not trimmed from the stream.

A hold is one member of a sorted set, `<stream id> <token>`, whose score is the second, by Redis'
clock, at which it lapses. So whatever kills its follower leaves nothing behind: `lua/room.lua`
passes over what has lapsed, and the next follower removes it.
"""

from __future__ import annotations

import contextlib
import secrets
import time

import redis

from worker.wire import keyspace, scripts

#: A follower that has not renewed its hold for so long is taken for dead.
HOLD_S = 120.0
#: Held a little too long, a hold does no harm: it is moved and renewed at most this often.
RENEW_S = 1.0


class Hold(contextlib.AbstractContextManager["Hold"]):
    """Holds the stream at one position until released, or `HOLD_S` after it was last kept."""

    def __init__(self, connection: redis.Redis) -> None:
        """Prepare; nothing is held yet."""
        self.connection = connection
        self._token = secrets.token_hex(8)
        self._member: str | None = None
        self._due = 0.0
        #: How far Redis' clock was ahead of ours, when it was last read.
        self._ahead_s: float | None = None

    def __exit__(self, *_: object) -> None:
        """Release it; where Redis is away it lapses by itself."""
        if self._member is not None:
            with contextlib.suppress(redis.RedisError):
                self.connection.zrem(keyspace.HOLDS, self._member)

    def keep(self, position: str) -> None:
        """Hold what is after `position`, and let go of what is before it."""
        if time.monotonic() < self._due:
            return
        if self._ahead_s is None:
            self._ahead_s = scripts.redis_seconds(self.connection) - time.monotonic()
        now = time.monotonic() + self._ahead_s
        member = f"{position} {self._token}"
        pipeline = self.connection.pipeline()
        pipeline.zadd(keyspace.HOLDS, {member: now + HOLD_S})
        if self._member not in (None, member):
            pipeline.zrem(keyspace.HOLDS, str(self._member))
        pipeline.zremrangebyscore(keyspace.HOLDS, "-inf", now)
        pipeline.expire(keyspace.HOLDS, int(2 * HOLD_S))
        pipeline.time()  # for the next time: it may be set
        seconds, micros = pipeline.execute()[-1]
        self._ahead_s = seconds + micros / 1e6 - time.monotonic()
        self._member, self._due = member, time.monotonic() + RENEW_S

    def move(self, position: str) -> None:
        """Hold from another position on, at once."""
        self._due = 0.0
        self.keep(position)
