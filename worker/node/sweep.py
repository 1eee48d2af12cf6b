"""The RQ job `sweep`: a node measures its row of a run, and publishes as results arrive."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import redis

from worker.identity.context import NodeContext
from worker.identity.rivals import with_rivals
from worker.identity.row_targets import denied, other
from worker.identity.whose import names_to_look_up
from worker.model.errors import ForeignWork, OtherWire
from worker.model.measurement import Outcome
from worker.model.names import NodeName, RunId
from worker.model.probe import Need
from worker.node.measures import Work, measure, work_on
from worker.publish.outbox import Outbox
from worker.publish.publisher import Publisher
from worker.publish.source_clock import SourceClock
from worker.wire import keyspace, rq_jobs, run_record, scripts
from worker.wire.connection import server
from worker.wire.connection.way import LONG_WAY_S, way_s
from worker.wire.node_record import Clock, Record
from worker.wire.registry import asking_parts, asking_records
from worker.wire.room import StreamFull
from worker.wire.round_trip import asking_sure, together
from worker.wire.rows import Row, enqueue_rows, load_row, note_begun, refuse

logger = logging.getLogger(__name__)

#: Takes a row that has completed its phase, and goes on to the next one.
CarryOn = Callable[[redis.Redis, Row], None]


def sweep(context: NodeContext, carry_on: CarryOn, run: RunId, phase: int, performer: int) -> None:
    """
    Measure one node's row of a run for one probe; `carry_on` is called where it completes a phase.

    Raises:
        WireError: The arguments or the run's plan are damaged, or the row is another node's.
    """
    connection = rq_jobs.connection_of_job(context.redis_url)
    try:
        row = load_row(connection, run, phase, performer)
    except OtherWire as exc:
        refuse(connection, run, phase, performer, f"{context.name}: {exc}")
        return
    if row is None:
        logger.warning("run %s is gone; nothing to measure", run[:80])
        return
    context = context.now(connection, tests=row.kind.need is Need.IPERF3)
    if row.name != context.name:
        raise ForeignWork(f"row {performer} of run {run} belongs to {row.name}")
    if row.bits and not row.kind.has_two_ends and not row.kind.target:
        # Before all else that it does, which so does not hold up those that go first.
        _wait(row.plan.start_offset_s(performer), context.should_stop)
    # Read before the row counts as begun: should Redis go away here, it is enqueued again.
    look = _look(connection, row) if row.bits else None
    if look is None or not look.left:
        logger.info("row %d of run %s has nothing left to measure", performer, run)
        return
    if not look.is_wanted:
        logger.info("row %d of run %s is no longer wanted", performer, run)
        return
    others = {other(row, pair) for pair in look.left} - {performer}
    records = with_rivals(connection, row, others, look.records)
    work, strangers = work_on(context, connection, row, look.left, others, records)
    loaded, row = row, work.row
    clock = SourceClock(connection, row.name, look.clock)
    clock.look(row.plan.nodes[source].name for source, _ in look.left)
    # The publisher's thread asks at the same time as a probe that asks Redis itself, or leaves
    # there what the run's later ones need.
    asks = row.kind.has_two_ends or row.kind.target or len(row.plan.probes) > row.phase + 1
    own = server.connect(context.redis_url) if asks and way_s() > LONG_WAY_S else connection
    outbox, begin = Outbox(context.outbox_path), partial(note_begun, own, row, look.now)
    with Publisher(own, outbox, row, clock, begin) as publisher:
        for finding in denied(row, look.left, strangers):
            publisher.put(finding)
        _measure(work, publisher)
    if publisher.has_completed:
        _carry_on(carry_on, connection, loaded, is_stopping=context.should_stop())
    if context.should_stop():
        _hand_back(connection, row)


def _carry_on(carry_on: CarryOn, connection: redis.Redis, row: Row, *, is_stopping: bool) -> None:
    """Carry a run on here, whose phase is complete with this row; what ends now leaves it."""
    try:
        if is_stopping:
            rq_jobs.enqueue_advance(connection, row.run)
        else:
            carry_on(connection, row)
    except (redis.RedisError, StreamFull) as exc:
        # The results are in; the overdue run is seen by the next heartbeat.
        level = server.severity(exc)
        logger.log(level, "run %s is not carried on from here: %s", row.run, exc)


def _wait(seconds: float, should_stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not should_stop() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))


@dataclass(frozen=True)
class _Look:
    """What Redis has of a row that begins: its pairs, the time, its node's clock, who is in it."""

    left: Sequence[tuple[int, int]]
    is_wanted: bool
    now: float
    clock: Clock
    records: dict[NodeName, Record]


def _look(connection: redis.Redis, row: Row) -> _Look:
    """Ask in one round trip; by it RQ is told that the job has begun."""
    others = {other(row, pair) for pair in row.bits} - {row.performer}

    def ask(pipeline: redis.client.Pipeline) -> None:
        row.ask_done(pipeline)
        pipeline.hmget(keyspace.run_key(row.run), run_record.WANTED)

    _, (done, values), now, clocks, found = together(
        connection,
        rq_jobs.asking_told(),
        asking_sure(ask),
        scripts.asking_seconds(),
        asking_parts([row.name], Clock),
        asking_records(names_to_look_up(row, others)),
    )
    return _Look(
        left=row.not_done(done),
        is_wanted=run_record.wanted(*values, phase=row.phase),
        now=now,
        clock=clocks[row.name],
        records=found,
    )


def _hand_back(connection: redis.Redis, row: Row) -> None:
    """Put an interrupted row back at the front of its node's queue, for its next start."""
    try:
        enqueue_rows(connection, [row], at_front=True)
    except redis.RedisError as exc:
        text = "row %d of run %s not handed back: %s"
        logger.log(server.severity(exc), text, row.performer, row.run, exc)


def _measure(work: Work, publisher: Publisher) -> None:
    row, pairs = work.row, work.pairs
    started, waiting = time.monotonic(), {row.plan.bit(*pair): pair for pair in pairs}

    def should_stop() -> bool:
        return publisher.stopped.is_set() or work.context.should_stop()

    try:
        for measurement in measure(work, should_stop):
            if waiting.pop(row.bit_of(measurement), None) is not None:
                publisher.put(measurement)
    except Exception as exc:
        # RQ's own JobTimeoutException is an Exception and must reach RQ: publish, re-raise.
        for pair in waiting.values():
            error = f"{type(exc).__name__}: {exc}"
            publisher.put(row.finding(pair, Outcome.CRASHED, error))
        raise
    logger.info(
        "sweep done run=%s probe=%s node=%s pairs=%d unfinished=%d elapsed_s=%.3f",
        row.run, row.probe, row.name, len(pairs), len(waiting), time.monotonic() - started,
    )  # fmt: skip
