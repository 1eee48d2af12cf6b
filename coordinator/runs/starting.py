"""
Starts a run, or joins an open one of the same plan.

Whoever dies here loses nothing: `advance` may be called by anyone at any time; it looks at what is
there and does what is due. Times are Redis' own clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import cast

import redis

from coordinator.results.stream import last_id
from coordinator.runs.nodes import check_pace
from coordinator.runs.retention import make_room_for_a_run
from coordinator.runs.runs import run_ids
from worker.model.cost import phase_seconds
from worker.model.names import RunId
from worker.model.plan import Plan
from worker.wire import keyspace, run_record, scripts
from worker.wire.node_record import Node
from worker.wire.registry import read_nodes
from worker.wire.room import no_room, read_limits, why_no_room
from worker.wire.rows import Row, enqueue_rows

#: Seconds beyond a sweep's own longest time before a phase is looked at: queueing, forking, Redis.
GRACE_S = 5.0
#: A phase that may take longer is looked at that often, as a source may die at once.
LOOK_S = 30.0


def start(
    connection: redis.Redis,
    plan: Plan,
    *,
    by: str = "",
    join: bool = True,
    registry: Sequence[Node] | None = None,
) -> tuple[RunId, bool]:
    """
    Write a run and enqueue its first phase, or `join` an open run of the same plan.

    Whatever forbids a run is asked here, as every run starts here. `registry` are all nodes, where
    the caller has just read them: a large mesh has many.

    Returns:
        The run's id, and whether it is new.

    Raises:
        RedisUnavailable: The results stream is full, Redis is short of memory, the nodes send it
            more commands than they may, or the open runs take more of it than they may.
    """
    limits = read_limits(connection)
    nodes = read_nodes(connection) if registry is None else registry
    check_pace(nodes, limits["commands_per_s"])
    make_room_for_a_run(connection, limits["run_bytes"])
    if (full := why_no_room(connection)) is not None:
        raise no_room(full)
    same = keyspace.same_plan_key(plan.digest)
    with connection.pipeline() as pipeline:
        while True:
            try:
                pipeline.watch(same)  # type: ignore[no-untyped-call]  # untyped in redis-py
                other = cast("bytes | None", pipeline.get(same))
                for run in run_ids([other] if join and other else []):
                    if run_record.is_wanted(connection, run):
                        return run, False
                run = _write(connection, pipeline, plan, same, by)
                break
            except redis.WatchError:
                continue
    # A trigger that dies here loses nothing: advance enqueues what is missing.
    enqueue_phase(connection, run, plan, 0)
    return run, True


def _write(
    connection: redis.Redis, pipeline: redis.client.Pipeline, plan: Plan, same: str, by: str
) -> RunId:
    now = scripts.redis_seconds(connection)
    stamp = datetime.fromtimestamp(now, timezone.utc).strftime("%Y%m%dT%H%M%S%f")[:-3]
    run = RunId(f"{stamp}-{secrets.token_hex(2)}")
    record = run_record.to_fields(plan, created=now, begun=last_id(connection), by=by)
    deadline = now + deadline_s(plan, 0)
    pipeline.multi()
    pipeline.hset(keyspace.run_key(run), mapping=record)
    pipeline.expire(keyspace.run_key(run), run_record.RUN_TTL_S)
    pipeline.set(same, run, ex=run_record.RUN_TTL_S)
    pipeline.zadd(keyspace.RUNS, {run: now})
    pipeline.zremrangebyscore(keyspace.RUNS, "-inf", now - run_record.RUN_TTL_S)
    pipeline.zadd(keyspace.RUNS_OPEN, {run: deadline})
    pipeline.execute()
    return run


def deadline_s(plan: Plan, phase: int) -> float:
    """Return the seconds after which a phase that has not ended is looked at."""
    return min(phase_seconds(plan, plan.probes[phase]), LOOK_S) + GRACE_S


def enqueue_phase(connection: redis.Redis, run: RunId, plan: Plan, phase: int) -> None:
    """Enqueue one sweep a performer."""
    performers = plan.performers(plan.probes[phase])
    rows = [Row(run=run, plan=plan, phase=phase, performer=node) for node in performers]
    enqueue_rows(connection, rows)
