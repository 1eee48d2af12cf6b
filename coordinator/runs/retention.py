"""
What is kept of runs in the shared Redis has a cap: the oldest that have ended make room.

After a week a run expires by itself (`run_record.RUN_TTL_S`).

A run that has ended has a result of each pair in the stream, which stays there.
"""

from __future__ import annotations

import logging

import redis

from coordinator.runs.footprint import bytes_of_runs, members, run_keys
from coordinator.runs.runs import MAX_RUNS
from worker.model.errors import RedisUnavailable
from worker.model.names import RunId
from worker.wire import keyspace

logger = logging.getLogger(__name__)


def make_room_for_a_run(connection: redis.Redis, most_bytes: int) -> None:
    """
    Forget the oldest ended runs, until fewer than `MAX_RUNS` stay, in at most `most_bytes`.

    Raises:
        RedisUnavailable: The runs that are open take more by themselves.
    """
    known = [RunId(run) for run in members(connection, keyspace.RUNS)]  # oldest first
    bytes_over = bytes_of_runs(connection, known) - most_bytes
    runs_over = len(known) + 1 - MAX_RUNS
    are_open = frozenset(members(connection, keyspace.RUNS_OPEN))
    for run in known:
        if bytes_over <= 0 and runs_over <= 0:
            break
        if run not in are_open:
            bytes_over -= bytes_of_runs(connection, [run])
            runs_over -= 1
            _forget(connection, run)
    if bytes_over > 0:
        raise RedisUnavailable(
            f"the open runs take {most_bytes + bytes_over:,} bytes of Redis, over their "
            f"{most_bytes:,}; wait for them (ptzmesh runs), or: ptzmesh limits --run-bytes N"
        )


def _forget(connection: redis.Redis, run: RunId) -> None:
    pipeline = connection.pipeline()
    pipeline.unlink(*run_keys(run))  # a thousand nodes' record would hold the lockers for DEL
    pipeline.zrem(keyspace.RUNS, run)
    pipeline.execute()
    logger.info("run %s is forgotten: newer ones need its room", run)
