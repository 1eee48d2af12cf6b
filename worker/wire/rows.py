"""
A row: what one node measures in one phase of a run, as one RQ job.

For a ping it is one source's targets; for tests with two ends, all that the node performs.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import redis

from worker.model.cost import phase_seconds
from worker.model.errors import ForeignWork
from worker.model.fields import number_or_none
from worker.model.measurement import Measurement, Outcome
from worker.model.measurement import finding as make_finding
from worker.model.names import REDIS_TARGET
from worker.model.plan import TRANSFERS, Plan, unpack_plan
from worker.wire import keyspace, rq_jobs, run_record, scripts
from worker.wire.connection.away import AWAY

logger = logging.getLogger(__name__)

#: A job may take so many times what its phase should, as nodes wait for each other and for other
#: runs; a hung sweep is noticed by its missing signs of life long before.
TIMEOUT_FACTOR, TIMEOUT_EXTRA_S = 4, 600
#: What a record has of its node's clock, by the names that the node's own record has them.
CLOCK_FIELDS = ("clock_offset_ms", "clock_offset_uncertainty_ms")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One node's part of one phase of a run."""

    run: str
    plan: Plan
    phase: int
    performer: int

    @property
    def probe(self) -> str:
        """The probe of this phase."""
        return self.plan.probes[self.phase]

    @property
    def name(self) -> str:
        """The node that performs it."""
        return self.plan.nodes[self.performer].name

    def bit_of(self, measurement: Measurement) -> int:
        """Give the place of a measurement in the run's bitmap."""
        source = self.plan.index_of(measurement.source)
        if self.probe == "redis":
            return self.plan.bit(source, source)
        return self.plan.bit(source, self.plan.index_of(measurement.target))

    def finding(
        self,
        pair: tuple[int, int],
        outcome: Outcome,
        error: str,
        started_at: datetime | None = None,
    ) -> Measurement:
        """Give the record of a pair that says why it has no numbers; by default as of now."""
        source, target = (self.plan.nodes[index] for index in pair)
        return make_finding(
            run=self.run,
            probe=self.probe,
            source=source.name,
            target=REDIS_TARGET if self.probe == "redis" else target.name,
            address="" if self.probe == "redis" else target.address,
            outcome=outcome,
            error=error,
            started_at=started_at,
        )

    def not_done(self, connection: redis.Redis) -> list[tuple[int, int]]:
        """Give the pairs whose bit is clear: all at first, fewer when a row is carried on."""
        pairs = self.plan.pairs_of(self.probe, self.performer)
        if not pairs:
            return []
        bits = {pair: self.plan.bit(*pair) for pair in pairs}
        # The whole bitmap of a large mesh is long, and each of its nodes reads it.
        first = min(bits.values()) // 8
        key = keyspace.done_key(self.run, self.probe)
        part = cast("bytes", connection.getrange(key, first, max(bits.values()) // 8))
        return [
            pair for pair, bit in bits.items() if not run_record.bit_is_set(part, bit - 8 * first)
        ]

    @property
    def timeout_s(self) -> int:
        """RQ's time-out of the row's job."""
        seconds = phase_seconds(self.plan, self.probe)
        factor = TIMEOUT_FACTOR if self.probe in TRANSFERS else 1
        return min(rq_jobs.MAX_JOB_S, int(factor * seconds) + TIMEOUT_EXTRA_S)


def end_lost(source: str, gone: str, why: str) -> tuple[Outcome, str]:
    """
    Say which end of a pair is gone; who performs a test may be either.

    >>> end_lost("a", "b", "was never heard")
    (<Outcome.TARGET_LOST: 'target_lost'>, 'target b was never heard')
    """
    if gone == source:
        return Outcome.SOURCE_LOST, f"source {gone} {why}"
    return Outcome.TARGET_LOST, f"target {gone} {why}"


def not_heard(silent_s: float | None) -> str:
    """
    Say for how long a node was not heard; None or infinity when it never was.

    >>> not_heard(31.2), not_heard(None)
    ('was not heard for 31 s', 'was never heard')
    """
    if silent_s is None or silent_s == math.inf:
        return "was never heard"
    return f"was not heard for {silent_s:.0f} s"


def load_row(connection: redis.Redis, run: object, phase: object, performer: object) -> Row | None:
    """
    Read and check what a job is about; None when the run has expired.

    Raises:
        OtherWire: The plan is of another wire version.
        WireError: The arguments or the plan are not what they should be.
    """
    if not isinstance(run, str) or type(phase) is not int or type(performer) is not int:
        raise ForeignWork("a row is named by run (text), phase and performer (whole numbers)")
    plan = load_plan(connection, run)
    if plan is None:
        return None
    if not 0 <= phase < len(plan.probes) or not 0 <= performer < len(plan.nodes):
        raise ForeignWork(f"run {run} has no phase {phase} with node {performer}")
    return Row(run=run, plan=plan, phase=phase, performer=performer)


def load_plan(connection: redis.Redis, run: str) -> Plan | None:
    """Read the plan of a run; None when the run has expired."""
    packed = cast("bytes | None", connection.hget(keyspace.run_key(run), "plan"))
    return None if packed is None else unpack_plan(packed)


def enqueue_rows(connection: redis.Redis, rows: Sequence[Row]) -> None:
    """Enqueue sweeps, a few in each transaction."""
    for start in range(0, len(rows), rq_jobs.JOBS_AT_A_TIME):
        pipeline = connection.pipeline()
        for row in rows[start : start + rq_jobs.JOBS_AT_A_TIME]:
            enqueue_row(connection, pipeline, row)
        pipeline.execute()


def enqueue_row(
    connection: redis.Redis,
    pipeline: redis.client.Pipeline,
    row: Row,
    *,
    at_front: bool = False,
) -> None:
    """Enqueue a row on its node's own queue, under a new job id; RQ wants the pipeline empty."""
    job_id = f"{row.run}-{row.phase}-{row.performer}-{secrets.token_hex(3)}"
    rq_jobs.enqueue(
        connection,
        pipeline,
        keyspace.node_queue(row.name),
        keyspace.SWEEP,
        {"run": row.run, "phase": row.phase, "performer": row.performer},
        job_id=job_id,
        timeout_s=row.timeout_s,
        at_front=at_front,
    )
    key, place = keyspace.run_key(row.run), (row.phase, row.performer)
    pipeline.hset(key, keyspace.job_field(*place), job_id)
    pipeline.hincrby(key, keyspace.attempts_field(*place), 1)
    # What was noted of the job before it is not true of this one.
    marks = (keyspace.started_field, keyspace.seen_field, keyspace.unserved_field)
    pipeline.hdel(key, *(field(*place) for field in marks))


def hand_back(connection: redis.Redis, row: Row) -> None:
    """Put an interrupted row back at the front of its node's queue, for its next start."""
    pipeline = connection.pipeline()
    enqueue_row(connection, pipeline, row, at_front=True)
    pipeline.execute()


def refuse(connection: redis.Redis, run: str, phase: int, performer: int, error: str) -> None:
    """
    Leave word in the run why its row will not be measured, and have the run carried on.

    For a node that cannot read the plan; who can, publishes its pairs.
    """
    logger.warning("row %d of run %s is refused: %s", performer, run[:80], error)
    run_record.note_in_run(connection, run, keyspace.refused_field(phase, performer), error)
    rq_jobs.enqueue_advance(connection, run)


def begin(connection: redis.Redis, row: Row) -> dict[str, float] | None:
    """
    Say that a row has started.

    Returns:
        `CLOCK_FIELDS`, the node's clock offset as its last heartbeat said it, if it did; None when
        the run is no longer in this phase.
    """
    key = keyspace.run_key(row.run)
    pipeline = connection.pipeline(transaction=False)
    pipeline.hmget(key, ["status", "cancel", "phase"])
    pipeline.hmget(keyspace.node_key(row.name), CLOCK_FIELDS)
    (status, cancelled, present), clock = pipeline.execute()
    if status != b"running" or cancelled is not None or present != b"%d" % row.phase:
        return None
    now = scripts.redis_seconds(connection)
    try:
        run_record.note_in_run(
            connection, row.run, keyspace.started_field(row.phase, row.performer), repr(now)
        )
    except AWAY as exc:
        # Redis may have it all the same, and then a row that is not measured would have crashed.
        logger.debug("row %d of run %s begins unsaid: %s", row.performer, row.run, exc)
    numbers = zip(CLOCK_FIELDS, map(number_or_none, clock), strict=True)
    return {name: number for name, number in numbers if number is not None}
