"""
The RQ job `sweep`: a node measures its row of a run, and publishes as results arrive.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgpack
import redis

from worker.host.resolve import LOOK_UP_S
from worker.identity.context import NodeContext
from worker.identity.identity import Allowance
from worker.identity.places import Moves, addresses_of, at_present
from worker.identity.proxies import settler
from worker.identity.rivals import read_row_records
from worker.identity.row_targets import (
    Pairs,
    denied,
    other,
    strangers_of,
    targets_of,
    with_addresses,
    with_literals,
)
from worker.identity.targets import Targets
from worker.identity.whose import Whose
from worker.model.cost import questions_a_node
from worker.model.errors import ForeignWork, OtherWire
from worker.model.measurement import Measurement, Outcome
from worker.model.plan import TRANSFERS, TargetNode
from worker.node import redis_probe
from worker.probes import ping, tcp
from worker.probes.interception.interception import LEAST_TIMES, with_echoes
from worker.publish.outbox import Outbox
from worker.publish.publisher import Publisher
from worker.publish.source_clock import SourceClock, read_clocks
from worker.transfer.idle_rtt import IdleRtt, read_idle_rtts
from worker.transfer.near import patiently, transfers
from worker.wire import run_record
from worker.wire.connection import server
from worker.wire.registry import Record
from worker.wire.rows import Row, begin, hand_back, load_row, refuse

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Work:
    """What is left of a row, and where the registry says that its nodes are now."""

    context: NodeContext
    connection: redis.Redis
    row: Row
    pairs: Pairs
    targets: Targets
    moves: Moves
    whose: Whose


def sweep(context: NodeContext, run: str, phase: int, performer: int) -> None:
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
    context = context.now(connection, tests=row.probe in TRANSFERS)
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
    work, strangers = _work_on(context, connection, row, left, others, records)
    row = work.row
    own_clock = read_clocks(connection, [row.name])[row.name]
    if not begin(connection, row):
        logger.info("row %d of run %s is no longer wanted", performer, run)
        return
    clock = SourceClock(connection, row.name, own_clock)
    clock.look(row.plan.nodes[source].name for source, _ in left)
    with Publisher(connection, Outbox(context.outbox_path), row, clock) as publisher:
        for one in denied(row, left, strangers):
            publisher.put(one)
        _measure(work, publisher)
    if context.should_stop():
        _hand_back(connection, row)


def _work_on(
    context: NodeContext,
    connection: redis.Redis,
    row: Row,
    pairs: Pairs,
    others: Collection[int],
    records: Mapping[str, Record],
) -> tuple[_Work, Mapping[int, str]]:
    """Give what may be measured, where its nodes are now; and the strangers, each with a reason."""
    places = addresses_of(records)
    row = at_present(row, {**places, row.name: context.address})
    targets = targets_of(context, row, others)
    strangers = strangers_of(context, row, others, places)
    work = _Work(
        context=context,
        connection=connection,
        row=row,
        pairs=[pair for pair in pairs if other(row, pair) not in strangers],
        targets=targets,
        moves=Moves(connection, places, row.plan.family),
        whose=Whose(
            context=context, row=row, records=records, allowed=Allowance(questions_a_node(row.plan))
        ),
    )
    return work, strangers


def _hand_back(connection: redis.Redis, row: Row) -> None:
    try:
        hand_back(connection, row)
    except redis.RedisError as exc:
        said = "row %d of run %s not handed back: %s"
        logger.log(server.severity(exc), said, row.performer, row.run, exc)


def _measure(work: _Work, publisher: Publisher) -> None:
    row, pairs = work.row, work.pairs
    started, waiting = time.monotonic(), {row.plan.bit(*pair): pair for pair in pairs}

    def should_stop() -> bool:
        return publisher.stopped.is_set() or work.context.should_stop()

    try:
        for measurement in _probe(work, should_stop):
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


def _probe(work: _Work, should_stop: Callable[[], bool]) -> Iterator[Measurement]:
    row = work.row
    if row.probe == "redis":
        options = row.plan.redis
        yield from redis_probe.measure(
            row.run, row.name, work.context.redis_url, options, should_stop
        )
    elif row.probe in TRANSFERS:
        yield from _tests(work, should_stop)
    else:
        _sleep(row.plan.start_offset_s(row.performer), should_stop)
        yield from _echoes(work, should_stop)


def _tests(work: _Work, should_stop: Callable[[], bool]) -> Iterator[Measurement]:
    """Test; a far node that has moved since is looked up and judged where it is, and comes last."""
    context, connection, row, moves = work.context, work.connection, work.row, work.moves
    looked = work.targets.judged(LOOK_UP_S, should_stop)
    ready, findings = with_addresses(row, work.pairs, looked)
    yield from findings
    parted = work.whose.part(ready, should_stop)
    yield from parted.findings
    literal = with_literals(row, parted.ready)
    measured = transfers(context, connection, literal, list(parted.ready), moves, should_stop)
    yield from parted.marked(measured)
    if not moves.pairs or should_stop():
        return
    others = {other(row, pair) for pair in moves.pairs}
    records = patiently(lambda: read_row_records(connection, row, others), should_stop)
    if records is None:
        return
    again, strangers = _work_on(context, connection, row, moves.pairs, others, records)
    yield from denied(again.row, moves.pairs, strangers)
    yield from _tests(again, should_stop)


def _echoes(work: _Work, should_stop: Callable[[], bool]) -> Iterator[Measurement]:
    """
    Measure first who has an address at once, and after these who has got one meanwhile.

    Pings leave the round-trip times for the run's later phases: time-outs need them, and what
    handshakes took is compared with the least of them.
    """
    connection, row = work.connection, work.row
    idle = _idle_rtts(connection, row) if row.probe == "tcp" else {}
    for looked in work.targets.batches(should_stop):
        now = [pair for pair in work.pairs if row.plan.nodes[other(row, pair)].address in looked]
        ready, findings = with_addresses(row, now, looked)
        yield from findings
        parted = work.whose.part(ready, should_stop)
        yield from parted.findings
        nodes = list(parted.ready.values())
        for measurement in parted.marked(_echo(work, nodes, should_stop)):
            if row.probe == "ping" and measurement.detail.get("rtt_median_ms") is not None:
                idle[measurement.target] = _idle_rtt(measurement)
            if row.probe == "tcp" and (rtt := idle.get(measurement.target)) is not None:
                is_there = rtt.address == measurement.address
                measurement = with_echoes(measurement, rtt.least_ms if is_there else None)
            yield measurement
    if idle and row.probe == "ping" and len(row.plan.probes) > row.phase + 1:
        _keep_idle_rtts(connection, row, idle)


def _idle_rtt(one: Measurement) -> IdleRtt:
    """Give a target's median, and the least time of its echoes where these are enough."""
    enough = one.detail.get("received", 0) >= LEAST_TIMES
    least_ms = one.detail["rtt_min_ms"] if enough else None
    return IdleRtt(one.detail["rtt_median_ms"], least_ms, one.address)


def _echo(
    work: _Work, nodes: Sequence[TargetNode], should_stop: Callable[[], bool]
) -> Iterator[Measurement]:
    row = work.row
    if not nodes:
        return iter(())
    if row.probe == "tcp":
        names = {(str(node.address), row.plan.tcp.port): node.name for node in nodes}
        most = questions_a_node(row.plan)
        settle = settler(work.context, work.connection, names, most, should_stop)
        return tcp.measure(row.run, row.name, nodes, row.plan.tcp, should_stop, settle)
    return ping.measure(row.run, row.name, nodes, row.plan.ping, should_stop)


def _keep_idle_rtts(connection: redis.Redis, row: Row, idle: dict[str, IdleRtt]) -> None:
    try:
        packed = msgpack.packb(idle)
        run_record.note(connection, row.run, run_record.rtt_field(row.performer), packed)
    except redis.RedisError as exc:
        logger.log(server.severity(exc), "idle round-trip times not kept: %s", exc)


def _idle_rtts(connection: redis.Redis, row: Row) -> dict[str, IdleRtt]:
    try:
        return read_idle_rtts(connection, row)
    except redis.RedisError as exc:
        logger.log(server.severity(exc), "handshakes are not compared with echoes: %s", exc)
        return {}


def _sleep(seconds: float, should_stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not should_stop() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))
