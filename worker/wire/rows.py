"""
A row: what one node measures in one phase of a run, as one RQ job.

For a ping it is one source's targets; for tests with two ends, all that the node performs.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property

import redis

from worker import __version__
from worker.model.cost import phase_seconds
from worker.model.errors import ForeignWork
from worker.model.measurement import Measurement, Outcome
from worker.model.names import NodeName, RunId
from worker.model.plan import Plan
from worker.model.probe import Probe
from worker.wire import keyspace, rq_jobs, run_record, scripts
from worker.wire.round_trip import in_parts, together

logger = logging.getLogger(__name__)

#: A job may take this many times what its phase should, as nodes wait for each other and for other
#: runs; a hung sweep is noticed by its missing signs of life long before.
TIMEOUT_FACTOR, TIMEOUT_EXTRA_S = 4, 600


#: Sent without waiting for the one before: Redis serves others in between.
SCRIPTS_AT_A_TIME = 8
#: What scripts know for good of a run.
OF_RUNS = scripts.constants(
    {
        "STATUS": run_record.STATUS,
        "CANCEL": run_record.CANCEL,
        "PHASE": run_record.PHASE,
        "CREATED": run_record.CREATED,
        "BEGUN": run_record.BEGUN,
        "RUNNING": run_record.IS_RUNNING,
    }
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One node's part of one phase of a run."""

    run: RunId
    plan: Plan
    phase: int
    performer: int

    @property
    def probe(self) -> str:
        """The probe of this phase."""
        return self.plan.probes[self.phase]

    @property
    def kind(self) -> Probe:
        """What is known of that probe."""
        return self.plan.kind(self.probe)

    @property
    def name(self) -> NodeName:
        """The node that performs it."""
        return self.plan.nodes[self.performer].name

    @property
    def fields(self) -> run_record.RowFields:
        """The names of its fields in the run's hash."""
        return run_record.row_fields(self.phase, self.performer)

    def bit_of(self, measurement: Measurement) -> int:
        """Return the bit of a measurement in the run's bitmap."""
        source = self.plan.index_of[measurement.source]
        if self.kind.target:
            return self.plan.bit(source, source)
        return self.plan.bit(source, self.plan.index_of[measurement.target])

    def finding(
        self,
        pair: tuple[int, int],
        outcome: Outcome,
        error: str,
        started_at: datetime | None = None,
    ) -> Measurement:
        """Return the record of a pair that says why it has no numbers; by default as of now."""
        source, target = (self.plan.nodes[index] for index in pair)
        return Measurement(
            run=self.run,
            probe=self.probe,
            source=source.name,
            target=self.kind.target or target.name,
            address="" if self.kind.target else target.address,
            outcome=outcome,
            error=error,
            started_at=started_at or datetime.now(timezone.utc),
        )

    @cached_property
    def bits(self) -> Mapping[tuple[int, int], int]:
        """Its pairs, each with its bit in the run's bitmap."""
        pairs = self.plan.pairs_of(self.probe, self.performer)
        return {pair: self.plan.bit(*pair) for pair in pairs}

    def ask_done(self, pipeline: redis.client.Pipeline) -> None:
        """Queue what `not_done` takes the answer of."""
        # The whole bitmap of a large mesh is long, and each of its nodes reads it.
        first, last = min(self.bits.values()) // 8, max(self.bits.values()) // 8
        pipeline.getrange(keyspace.done_key(self.run, self.probe), first, last)

    def not_done(self, part: bytes) -> list[tuple[int, int]]:
        """Return the pairs whose bit is clear: all at first, fewer when a row is carried on."""
        skipped = min(self.bits.values()) // 8 * 8
        is_set = run_record.bit_is_set
        return [pair for pair, bit in self.bits.items() if not is_set(part, bit - skipped)]

    @property
    def timeout_s(self) -> int:
        """RQ's time-out of the row's job."""
        seconds = phase_seconds(self.plan, self.probe)
        # The way to Redis may take several times what an operation there is waited for.
        is_of_unknown_length = self.kind.has_two_ends or self.kind.target
        factor = TIMEOUT_FACTOR if is_of_unknown_length else 1
        return min(rq_jobs.MAX_JOB_S, int(factor * seconds) + TIMEOUT_EXTRA_S)


def end_lost(source: str, gone: str, why: str) -> tuple[Outcome, str]:
    """
    Say which end of a pair is gone; the one that performs a test may be either.

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


def too_old(row: Row) -> str:
    """Return in words that this ptzmesh is too old for the probe of a row; empty when it is not."""
    lacks = row.plan.lacks(row.probe)
    return f"ptzmesh {__version__} does not know {lacks}; upgrade it there" if lacks else ""


def load_row(connection: redis.Redis, run: object, phase: object, performer: object) -> Row | None:
    """
    Read and check what a job is about; None when the run has expired.

    Raises:
        OtherWire: The plan is of another wire version.
        WireError: The arguments or the plan are not what they should be.
    """
    if not isinstance(run, str) or type(phase) is not int or type(performer) is not int:
        raise ForeignWork("a row is named by run (text), phase and performer (whole numbers)")
    run = RunId(run)
    plan = run_record.read_plan(connection, run)
    return None if plan is None else row_of(run, plan, phase, performer)


def row_of(run: RunId, plan: Plan, phase: int, performer: int) -> Row:
    """
    Return a row of a run.

    Raises:
        WireError: The plan has no such row.
    """
    if not 0 <= phase < len(plan.probes) or not 0 <= performer < len(plan.nodes):
        raise ForeignWork(f"run {run} has no phase {phase} with node {performer}")
    return Row(run=run, plan=plan, phase=phase, performer=performer)


def enqueue_rows(connection: redis.Redis, rows: Sequence[Row], *, at_front: bool = False) -> None:
    """Enqueue rows on their nodes' own queues, each under a new job id; a few in one script."""
    for part in in_parts(rows, rq_jobs.JOBS_AT_A_TIME * SCRIPTS_AT_A_TIME):
        words = [
            commands_of(few, at_front=at_front) for few in in_parts(part, rq_jobs.JOBS_AT_A_TIME)
        ]
        together(connection, *(scripts.asking(("commands", "enqueue"), [], few) for few in words))


def commands_of(rows: Sequence[Row], *, at_front: bool = False) -> list[bytes]:
    """Return what enqueues a few rows as `lua/commands.lua` takes it."""
    return rq_jobs.words_of([one for row in rows for one in _enqueuing(row, at_front=at_front)])


def _enqueuing(row: Row, *, at_front: bool) -> list[rq_jobs.Command]:
    job_id = f"{row.run}-{row.phase}-{row.performer}-{secrets.token_hex(3)}"
    key, fields = keyspace.run_key(row.run), row.fields
    commands = rq_jobs.enqueuing(
        keyspace.node_queue(row.name),
        keyspace.SWEEP,
        {"run": row.run, "phase": row.phase, "performer": row.performer},
        job_id=job_id,
        timeout_s=row.timeout_s,
        at_front=at_front,
    )
    return [
        *commands,
        ("HSET", key, fields.job, job_id),
        ("HINCRBY", key, fields.attempts, "1"),
        # What was noted of the job before it is not true of this one.
        ("HDEL", key, fields.started, fields.seen, fields.unserved),
    ]


def refuse(connection: redis.Redis, run: RunId, phase: int, performer: int, error: str) -> None:
    """
    Note in the run why its row will not be measured, and have the run carried on.

    For a node that cannot read the plan; one that can publishes its pairs.
    """
    logger.warning("row %d of run %s is refused: %s", performer, run[:80], error)
    run_record.note(connection, run, run_record.row_fields(phase, performer).refused, error)
    rq_jobs.enqueue_advance(connection, run)


def note_begun(connection: redis.Redis, row: Row, now: float) -> None:
    """Note when a row began, by Redis' clock; it is measured also where that cannot be noted."""
    try:
        run_record.note(connection, row.run, row.fields.started, repr(now))
    except redis.RedisError as exc:
        logger.debug("the start of row %d of run %s is not noted: %s", row.performer, row.run, exc)


def sign_of_life(connection: redis.Redis, row: Row) -> bool:
    """Note that a row is still measured, if its run is still wanted; return whether it is."""
    sign = scripts.script(connection, "sign_of_life", before=OF_RUNS)
    return bool(sign([keyspace.run_key(row.run)], [row.fields.seen, run_record.RUN_TTL_S]))
