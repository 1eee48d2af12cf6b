"""The RQ job `sweep`: a node measures its row of a run, and publishes as results arrive."""

from __future__ import annotations

import logging
import time

import redis

from worker.identity.context import NodeContext
from worker.identity.rivals import read_row_records
from worker.identity.row_targets import denied, other
from worker.model.errors import ForeignWork, OtherWire
from worker.model.measurement import Outcome
from worker.model.names import RunId
from worker.model.probe import Need
from worker.node.measures import Work, measure, work_on
from worker.publish.outbox import Outbox
from worker.publish.publisher import Publisher
from worker.publish.source_clock import SourceClock
from worker.wire.connection import server
from worker.wire.node_record import Clock
from worker.wire.registry import read_parts
from worker.wire.rows import Row, begin, enqueue_rows, load_row, refuse

logger = logging.getLogger(__name__)


def sweep(context: NodeContext, run: RunId, phase: int, performer: int) -> None:
    """
    Measure one node's row of a run for one probe.

    Raises:
        WireError: The arguments or the run's plan are damaged, or the row is another node's.
    """
    connection = server.connect(context.redis_url)
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
    # Read before the row counts as begun: should Redis go away here, it is enqueued again.
    left = row.not_done(connection)
    if not left:
        logger.info("row %d of run %s has nothing left to measure", performer, run)
        return
    others = {other(row, pair) for pair in left} - {performer}
    records = read_row_records(connection, row, others)
    # Addresses are looked up while Redis is asked.
    work, strangers = work_on(context, connection, row, left, others, records)
    row = work.row
    own_clock = read_parts(connection, [row.name], Clock)[row.name]
    if not begin(connection, row):
        logger.info("row %d of run %s is no longer wanted", performer, run)
        return
    clock = SourceClock(connection, row.name, own_clock)
    clock.look(row.plan.nodes[source].name for source, _ in left)
    with Publisher(connection, Outbox(context.outbox_path), row, clock) as publisher:
        for finding in denied(row, left, strangers):
            publisher.put(finding)
        _measure(work, publisher)
    if context.should_stop():
        _hand_back(connection, row)


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
