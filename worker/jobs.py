"""
The RQ jobs that a node executes: `sweep`, one source's row of a run for one probe.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import redis

from worker import wire
from worker.errors import WireError
from worker.measurement import Measurement, Outcome
from worker.outbox import Outbox
from worker.plan import Plan, PlannedNode, unpack_plan
from worker.probes import ping
from worker.publisher import Publisher

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NodeContext:
    """What a job needs to know of the node that runs it."""

    name: str
    redis_url: str = field(repr=False)
    outbox_path: Path
    should_stop: Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One source's part of one phase of a run."""

    run: str
    plan: Plan
    phase: int
    source: int

    @property
    def probe(self) -> str:
        """The probe of this phase."""
        return self.plan.probes[self.phase]

    def bit_of(self, measurement: Measurement) -> int:
        """Give the place of a measurement of this row in the run's bitmap."""
        return self.plan.bit(self.source, self.plan.index_of(measurement.target))


def sweep(context: NodeContext, run: str, phase: int, source: int) -> None:
    """
    Measure one source's row of a run for one probe, publishing as results arrive.

    Raises:
        WireError: The arguments or the run's plan are damaged, or the row is another node's.
    """
    connection = wire.connect(context.redis_url)
    row = _load_row(connection, context.name, run, phase, source)
    if row is None:
        return
    offset_ms = _begin(connection, row)
    if offset_ms is None:
        logger.info("row %d of run %s is no longer wanted", source, run)
        return
    _sleep(row.plan.start_offset_s(source), context.should_stop)
    extra = {} if offset_ms == "" else {"clock_offset_ms": float(offset_ms)}
    outbox = Outbox(context.outbox_path)
    with Publisher(connection, outbox, run, row.bit_of, extra) as publisher:
        _measure(context, connection, row, publisher)
    if context.should_stop():
        _hand_back(connection, row)


def _load_row(
    connection: redis.Redis, name: str, run: str, phase: int, source: int
) -> Row | None:
    """Read and check what this job is about; None when the run has expired."""
    if not isinstance(run, str) or type(phase) is not int or type(source) is not int:
        raise WireError("a sweep takes run (text), phase and source (whole numbers)")
    plan = load_plan(connection, run)
    if plan is None:
        logger.warning("run %s is gone; nothing to measure", run[:80])
        return None
    if not 0 <= phase < len(plan.probes) or source not in plan.sources:
        raise WireError(f"run {run} has no phase {phase} with source {source}")
    if plan.nodes[source].name != name:
        raise WireError(f"row {source} of run {run} belongs to {plan.nodes[source].name}")
    return Row(run=run, plan=plan, phase=phase, source=source)


def load_plan(connection: redis.Redis, run: str) -> Plan | None:
    """Read the plan of a run; None when the run has expired."""
    packed = cast("bytes | None", connection.hget(wire.run_key(run), "plan"))
    return None if packed is None else unpack_plan(packed)


def _begin(connection: redis.Redis, row: Row) -> str | None:
    """
    Say that this row has started.

    Returns:
        The node's clock offset as its last heartbeat said it, empty when it is not known;
        None when the run is no longer in this phase.
    """
    key = wire.run_key(row.run)
    pipeline = connection.pipeline(transaction=False)
    pipeline.hmget(key, ["status", "cancel", "phase"])
    pipeline.hget(wire.node_key(row.plan.nodes[row.source].name), "clock_offset_ms")
    (status, cancelled, present), offset_ms = pipeline.execute()
    if status != b"running" or cancelled is not None or int(present) != row.phase:
        return None
    now = wire.redis_seconds(connection)
    connection.hset(key, wire.started_field(row.phase, row.source), repr(now))
    return offset_ms.decode() if offset_ms else ""


def _sleep(seconds: float, should_stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not should_stop() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))


def _measure(
    context: NodeContext, connection: redis.Redis, row: Row, publisher: Publisher
) -> None:
    targets, strangers = _split_registered(connection, _not_done(connection, row))
    for target in strangers:
        error = f"{target.name} at {target.address} is not a registered node"
        publisher.put(_finding(row, target, Outcome.DENIED, error))
    started, waiting = time.monotonic(), {target.name: target for target in targets}
    try:
        for measurement in _probe(context, row, targets, publisher):
            waiting.pop(measurement.target, None)
            publisher.put(measurement)
    except Exception as exc:
        # RQ's own JobTimeoutException is an Exception and must reach RQ: publish, re-raise.
        for target in waiting.values():
            error = f"{type(exc).__name__}: {exc}"
            publisher.put(_finding(row, target, Outcome.CRASHED, error))
        raise
    logger.info(
        "sweep done run=%s probe=%s source=%s targets=%d unfinished=%d elapsed_s=%.3f",
        row.run, row.probe, context.name, len(targets), len(waiting), time.monotonic() - started,
    )  # fmt: skip


def _probe(
    context: NodeContext, row: Row, targets: Sequence[PlannedNode], publisher: Publisher
) -> Iterator[Measurement]:
    def should_stop() -> bool:
        return publisher.stopped.is_set() or context.should_stop()

    return ping.measure(row.run, context.name, targets, row.plan.ping, should_stop)


def _finding(row: Row, target: PlannedNode, outcome: Outcome, error: str) -> Measurement:
    return ping.finding(row.run, row.plan.nodes[row.source].name, target, outcome, error)


def _not_done(connection: redis.Redis, row: Row) -> list[PlannedNode]:
    """Give the targets whose bit is clear: all at first, fewer when a row is carried on."""
    bitmap = cast("bytes | None", connection.get(wire.done_key(row.run, row.probe))) or b""
    targets = row.plan.targets_of(row.source)
    bit = row.plan.bit
    return [
        row.plan.nodes[t] for t in targets if not wire.bit_is_set(bitmap, bit(row.source, t))
    ]


def _split_registered(
    connection: redis.Redis, targets: Sequence[PlannedNode]
) -> tuple[list[PlannedNode], list[PlannedNode]]:
    """Part the targets that are registered nodes at that address from those that are not."""
    pipeline = connection.pipeline(transaction=False)
    for target in targets:
        pipeline.hget(wire.node_key(target.name), "address")
    good: list[PlannedNode] = []
    strangers: list[PlannedNode] = []
    for target, address in zip(targets, pipeline.execute(), strict=True):
        (good if address == target.address.encode() else strangers).append(target)
    return good, strangers


def _hand_back(connection: redis.Redis, row: Row) -> None:
    """Put an interrupted row back at the front of this node's queue, for its next start."""
    try:
        pipeline = connection.pipeline()
        enqueue_sweep(connection, pipeline, row, at_front=True)  # RQ wants a pipeline still empty
        pipeline.hdel(wire.run_key(row.run), wire.started_field(row.phase, row.source))
        pipeline.execute()
    except redis.RedisError as exc:
        logger.warning("row %d of run %s could not be handed back: %s", row.source, row.run, exc)


def enqueue_sweep(
    connection: redis.Redis,
    pipeline: redis.client.Pipeline,
    row: Row,
    *,
    at_front: bool = False,
) -> None:
    """Enqueue one source's row on that node's own queue, under a new job id."""
    job_id = f"{row.run}-{row.phase}-{row.source}-{secrets.token_hex(3)}"
    wire.enqueue(
        connection,
        pipeline,
        wire.node_queue(row.plan.nodes[row.source].name),
        wire.SWEEP,
        {"run": row.run, "phase": row.phase, "source": row.source},
        job_id=job_id,
        timeout_s=int(row.plan.sweep_seconds(row.probe)) + 60,
        at_front=at_front,
    )
    pipeline.hset(wire.run_key(row.run), wire.job_field(row.phase, row.source), job_id)
