"""
Starts a run, or joins an open one of the same plan.

Whoever dies here loses nothing: `advance` may be called by anyone at any time; it looks at what is
there and does what is due. Times are Redis' own clock.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

import redis

from coordinator.runs.nodes import check_pace
from coordinator.runs.retention import Kept, asking_kept, make_room_for_a_run
from worker.model.cost import phase_seconds
from worker.model.names import RunId
from worker.model.plan import Plan
from worker.wire import keyspace, run_record, scripts
from worker.wire.connection.way import allowing
from worker.wire.node_record import Node
from worker.wire.registry import asking_nodes
from worker.wire.room import StreamFull, asking_limits, asking_room, no_room
from worker.wire.round_trip import Asking, alone, joined, second
from worker.wire.rows import OF_RUNS, Row, commands_of, enqueue_rows
from worker.wire.rq_jobs import JOBS_AT_A_TIME
from worker.wire.run_record import Run

#: Seconds beyond a sweep's own longest time before a phase is looked at: queueing, forking, Redis,
#: and so many round trips to that.
GRACE_S, GRACE_TRIPS = 5.0, 30
#: A phase that may take longer is looked at that often, as a source may die at once.
LOOK_S = 30.0


class Look(NamedTuple):
    """
    What a trigger looks at before it starts a run.

    Attributes:
        registry: All nodes.
        limits: Of the mesh in this Redis.
        kept: What there is of runs.
        full: Why no result has room; None when they have.
        redis_s: Redis' clock, epoch seconds.
        looked_at: Ours then, monotonic seconds.
    """

    registry: Sequence[Node]
    limits: Mapping[str, int]
    kept: Kept
    full: StreamFull | None
    redis_s: float
    looked_at: float

    @property
    def now_s(self) -> float:
        """Redis' clock by now."""
        return self.redis_s + time.monotonic() - self.looked_at


def asking_look(registry: Sequence[Node] | None = None) -> Asking[Look]:
    """Ask for what may forbid a run; `registry` is given by who knows it."""
    rules = asking_limits(), asking_kept(), second(asking_room()), scripts.asking_seconds()
    asked = rules if registry is not None else (asking_nodes(), *rules)
    found = yield from joined(*asked)
    everyone = found[0] if registry is None else registry
    limits, kept, full, redis_s = found[-len(rules) :]
    return Look(everyone, limits, kept, full, redis_s, time.monotonic())


def start(
    connection: redis.Redis,
    plan: Plan,
    *,
    by: str = "",
    join: bool = True,
    registry: Sequence[Node] | None = None,
    look: Look | None = None,
) -> tuple[RunId, Run | None]:
    """
    Write a run and enqueue its first phase, or `join` an open run of the same plan.

    Whatever forbids a run is looked at here, as every run starts here. `look` is the answer, where
    the caller has just asked; `registry` are all nodes, where it has read them: they may be many.

    Returns:
        The run's id, and the run as it begins; None when it was joined.

    Raises:
        RedisUnavailable: The results stream is full, Redis is short of memory, the nodes send it
            more commands than they may, or the open runs take more of it than they may.
    """
    seen = look or alone(connection, asking_look(registry))
    check_pace(seen.registry, seen.limits["commands_per_s"])
    make_room_for_a_run(connection, seen.limits["run_bytes"], seen.kept)
    if seen.full is not None:
        raise no_room(seen.full)
    stamp = datetime.fromtimestamp(seen.now_s, timezone.utc).strftime("%Y%m%dT%H%M%S%f")[:-3]
    run = RunId(f"{stamp}-{secrets.token_hex(2)}")
    rows = rows_of(run, plan, 0)
    other, is_new, *begun = scripts.script(connection, "commands", "start", before=OF_RUNS)(
        [
            *(keyspace.same_plan_key(plan.digest), keyspace.run_key(run)),
            *(keyspace.RUNS, keyspace.RUNS_OPEN, keyspace.RESULTS),
        ],
        [*_words(run, plan, by, join), *commands_of(rows[:JOBS_AT_A_TIME])],
    )
    if not is_new:
        return RunId(other.decode()), None
    # A trigger that dies here loses nothing: advance enqueues what is missing.
    enqueue_rows(connection, rows[JOBS_AT_A_TIME:])
    return run, run_record.as_it_begins(run, plan, by, *begun)


def _words(run: RunId, plan: Plan, by: str, join: bool) -> list[Any]:
    """Return the arguments of `lua/start.lua`, but for the commands."""
    record = run_record.to_fields(plan, by=by)
    fields = [word for field in record.items() for word in field]
    about = int(join), run, keyspace.run_key(RunId("")), run_record.RUN_TTL_S, deadline_s(plan, 0)
    return [*about, len(fields), *fields]


def deadline_s(plan: Plan, phase: int) -> float:
    """Return the seconds after which a phase that has not ended is looked at."""
    return min(phase_seconds(plan, plan.probes[phase]), LOOK_S) + allowing(GRACE_S, GRACE_TRIPS)


def rows_of(run: RunId, plan: Plan, phase: int) -> list[Row]:
    """Return the rows of a phase: one a performer."""
    performers = plan.performers(plan.probes[phase])
    return [Row(run=run, plan=plan, phase=phase, performer=node) for node in performers]
