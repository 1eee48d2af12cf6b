"""
The RQ jobs of a node, and the allow-list: the only work that a worker executes.

Whoever can write to this Redis can ask for a measurement and run nothing else: functions are
resolved from a mapping that the process was started with, never imported by name, payloads are
msgpack, and callbacks, webhooks, dependencies, retries and repeats that a job record may carry
are dropped when it is read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import redis
from rq.job import Job

from worker import wire
from worker.errors import PtzmeshError, WireError
from worker.measurement import Measurement, Outcome
from worker.outbox import Letter, Outbox
from worker.plan import Plan, PlannedNode, unpack_plan
from worker.probes import ping

logger = logging.getLogger(__name__)

AllowList = Mapping[str, Callable[..., None]]

#: Results are published at most this often while a sweep goes on: a matrix fills smoothly, and
#: Redis sees batches.
PUBLISH_EVERY_S = 0.1


@dataclass(frozen=True)
class NodeContext:
    """What a job needs to know of the node that runs it."""

    name: str
    redis_url: str
    outbox_path: Path
    should_stop: Callable[[], bool]


def allow_listed(allowed: AllowList) -> type[Job]:
    """Make the job class of a worker that runs these functions and no other."""

    class AllowListedJob(Job):
        """A job whose function comes from the allow-list and that has no callbacks."""

        @property
        def func(self) -> Callable[..., None]:
            """The function, or WireError when it is not on the allow-list."""
            name = self.func_name
            if name not in allowed or self.instance is not None:
                raise WireError(f"job {self.id} asks for {str(name)[:80]!r}: not on the allow-list")
            return allowed[name]

        def restore(self, raw_data: Any) -> Any:
            """Read the record, and drop everything in it that could run something else."""
            restored = super().restore(raw_data)
            self._success_callback_name = self._failure_callback_name = None
            self._stopped_callback_name = None
            self._success_callback = self._failure_callback = self._stopped_callback = None
            self.webhooks = []
            self.retries_left = self.repeats_left = None
            return restored

    return AllowListedJob


def sweep(context: NodeContext, run: str, phase: int, source: int) -> None:
    """
    Measure one source's row of a run for one probe, publishing as results arrive.

    Raises:
        WireError: The run's plan is damaged, or this row belongs to another node.
    """
    connection = wire.connect(context.redis_url)
    plan = load_plan(connection, run)
    if plan is None:
        logger.warning("run %s is gone; nothing to measure", run)
        return
    if plan.nodes[source].name != context.name:
        raise WireError(f"row {source} of run {run} belongs to {plan.nodes[source].name}")
    if not _begin(connection, run, phase, source):
        return
    time.sleep(_start_offset_s(plan, source))
    _measure_and_publish(context, connection, run, plan, plan.probes[phase], source)
    if context.should_stop():
        _hand_back(connection, context.name, run, phase, source)


def load_plan(connection: redis.Redis, run: str) -> Plan | None:
    """Read the plan of a run; None when the run has expired."""
    packed = cast("bytes | None", connection.hget(wire.run_key(run), "plan"))
    return None if packed is None else unpack_plan(packed)


def _begin(connection: redis.Redis, run: str, phase: int, source: int) -> bool:
    """Say that this row has started; False when the run is no longer in this phase."""
    key = wire.run_key(run)
    status, present = cast("list[bytes | None]", connection.hmget(key, ["status", "phase"]))
    if status != b"running" or int(present or -1) != phase:
        return False
    started_at = wire.redis_seconds(connection)
    connection.hset(key, f"started:{phase}:{source}", repr(started_at))
    return True


def _start_offset_s(plan: Plan, source: int) -> float:
    place = plan.sources.index(source)
    return plan.start_spread_s * place / len(plan.sources)


def _measure_and_publish(
    context: NodeContext, connection: redis.Redis, run: str, plan: Plan, probe: str, source: int
) -> None:
    outbox = Outbox(context.outbox_path)
    todo = _not_done(connection, run, plan, probe, source)
    index_of = {plan.nodes[target].name: target for target in todo}
    targets, denied = _split_registered(connection, [plan.nodes[t] for t in todo])
    found: Iterator[Measurement] = _all_of(
        [
            ping.finding(run, context.name, t, Outcome.DENIED, f"{t.address} is not the address of a node")
            for t in denied
        ],
        ping.measure(run, context.name, targets, plan.ping, context.should_stop),
    )
    answered: set[str] = set()
    try:
        for batch in _batches(found):
            answered.update(m.target for m in batch)
            _post(outbox, connection, run, plan, source, index_of, batch)
    except Exception as exc:
        # RQ's own JobTimeoutException is an Exception too and must reach RQ: publish, re-raise.
        crashed = [
            ping.finding(run, context.name, t, Outcome.CRASHED, f"{type(exc).__name__}: {exc}")
            for t in targets
            if t.name not in answered
        ]
        _post(outbox, connection, run, plan, source, index_of, crashed)
        raise


def _post(
    outbox: Outbox,
    connection: redis.Redis,
    run: str,
    plan: Plan,
    source: int,
    index_of: Mapping[str, int],
    batch: Sequence[Measurement],
) -> None:
    letters = [Letter(plan.bit(source, index_of[m.target]), m) for m in batch]
    if letters and outbox.post(connection, letters):
        enqueue_advance(connection, run)


def enqueue_advance(connection: redis.Redis, run: str) -> None:
    """Ask any node to carry the run on."""
    wire.enqueue(connection, wire.CONTROL_QUEUE, wire.ADVANCE, {"run": run})


def _all_of(first: Sequence[Measurement], rest: Iterator[Measurement]) -> Iterator[Measurement]:
    yield from first
    yield from rest


def _batches(found: Iterator[Measurement]) -> Iterator[list[Measurement]]:
    batch: list[Measurement] = []
    due = time.monotonic() + PUBLISH_EVERY_S
    for measurement in found:
        batch.append(measurement)
        if time.monotonic() >= due:
            yield batch
            batch = []
            due = time.monotonic() + PUBLISH_EVERY_S
    if batch:
        yield batch


def _not_done(
    connection: redis.Redis, run: str, plan: Plan, probe: str, source: int
) -> list[int]:
    """Give the targets whose bit is clear: all at first, fewer when a row is carried on."""
    targets = plan.targets_of(source)
    pipeline = connection.pipeline(transaction=False)
    for target in targets:
        pipeline.getbit(wire.done_key(run, probe), plan.bit(source, target))
    return [t for t, bit in zip(targets, pipeline.execute(), strict=True) if not bit]


def _split_registered(
    connection: redis.Redis, targets: Sequence[PlannedNode]
) -> tuple[list[PlannedNode], list[PlannedNode]]:
    """Part the targets that are registered nodes at that address from those that are not."""
    pipeline = connection.pipeline(transaction=False)
    for target in targets:
        pipeline.hget(wire.node_key(target.name), "address")
    known = dict(zip(targets, pipeline.execute(), strict=True))
    good = [t for t in targets if known[t] == t.address.encode()]
    return good, [t for t in targets if t not in good]


def _hand_back(connection: redis.Redis, name: str, run: str, phase: int, source: int) -> None:
    """Put an interrupted row back at the front of this node's queue, for its next start."""
    try:
        enqueue_sweep(connection, name, run, phase, source, at_front=True)
    except (redis.RedisError, PtzmeshError):
        logger.warning("row %d of run %s could not be handed back", source, run)


def enqueue_sweep(
    connection: redis.Redis,
    name: str,
    run: str,
    phase: int,
    source: int,
    *,
    timeout_s: int = 3600,
    pipeline: Any = None,
    at_front: bool = False,
) -> None:
    """Enqueue one source's row on that node's own queue."""
    wire.enqueue(
        connection,
        wire.node_queue(name),
        wire.SWEEP,
        {"run": run, "phase": phase, "source": source},
        job_id=sweep_job_id(run, phase, source),
        timeout_s=timeout_s,
        pipeline=pipeline,
        at_front=at_front,
    )


def sweep_job_id(run: str, phase: int, source: int) -> str:
    """Give the RQ id of a row's job."""
    return f"{run}-{phase}-{source}"
