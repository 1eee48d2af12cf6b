"""What is noted in a run's hash."""

from __future__ import annotations

import redis

from worker.wire import keyspace

#: Runs and their bitmaps are kept for a week, and no more than the newest of them.
RUN_TTL_S = 7 * 24 * 3600
MAX_RUNS = 1000


def bit_is_set(bitmap: bytes, bit: int) -> bool:
    """
    Read one bit as Redis numbers them: the first bit is the highest of the first byte.

    >>> bit_is_set(b'\\x40', 1), bit_is_set(b'\\x40', 2), bit_is_set(b'', 9)
    (True, False, False)
    """
    return bit // 8 < len(bitmap) and bool(bitmap[bit // 8] >> (7 - bit % 8) & 1)


def run_is_wanted(connection: redis.Redis, run: str) -> bool:
    """Tell whether a run is open and nobody has cancelled it."""
    status, cancelled = connection.hmget(keyspace.run_key(run), ["status", "cancel"])
    return status == b"running" and cancelled is None


def note_in_run(connection: redis.Redis, run: str, field: str, value: str | bytes) -> None:
    """Note something of a row in its run; of a run that Redis has just lost, not for ever."""
    pipeline = connection.pipeline(transaction=False)
    pipeline.hset(keyspace.run_key(run), field, value)
    pipeline.expire(keyspace.run_key(run), RUN_TTL_S)
    pipeline.execute()
