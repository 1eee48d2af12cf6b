"""
What is kept of runs in the shared Redis has a cap: the oldest that have ended make room.

After a week a run expires by itself (`run_record.RUN_TTL_S`).

A run that has ended has a result of each pair in the stream, which stays there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import redis

from coordinator.runs.footprint import asking_bytes_of_runs, bytes_of_runs, run_keys
from coordinator.runs.runs import MAX_RUNS
from worker.model.errors import RedisUnavailable
from worker.model.names import RunId
from worker.wire import keyspace
from worker.wire.round_trip import Asking, alone, sure

logger = logging.getLogger(__name__)


class Kept(NamedTuple):
    """
    What is kept of runs.

    Attributes:
        known: Ids, the oldest first.
        are_open: Those that have not ended.
        bytes: What all of them take.
    """

    known: Sequence[RunId]
    are_open: frozenset[str]
    bytes: int


def asking_kept() -> Asking[Kept]:
    """Ask for what is kept of runs."""
    known, are_open = (
        [RunId(name.decode(errors="replace")) for name in names]
        for names in sure((yield _look_at_runs))
    )
    return Kept(known, frozenset(are_open), (yield from asking_bytes_of_runs(known)))


def _look_at_runs(pipeline: redis.client.Pipeline) -> None:
    pipeline.zrange(keyspace.RUNS, 0, -1)
    pipeline.zrange(keyspace.RUNS_OPEN, 0, -1)


def make_room_for_a_run(connection: redis.Redis, most_bytes: int, kept: Kept | None = None) -> None:
    """
    Forget the oldest ended runs, until fewer than `MAX_RUNS` stay, in at most `most_bytes`.

    Raises:
        RedisUnavailable: The runs that are open take more by themselves.
    """
    known, are_open, taken = kept or alone(connection, asking_kept())
    bytes_over, runs_over = taken - most_bytes, len(known) + 1 - MAX_RUNS
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
