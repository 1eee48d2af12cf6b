"""
The RQ job `sweep`: a node measures its row of a run, and publishes as results arrive.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import msgpack
import redis

from worker import keyspace, redis_probe, wire
from worker.context import NodeContext
from worker.errors import ForeignWork, OtherWire
from worker.measurement import Measurement, Outcome
from worker.outbox import Outbox
from worker.plan import TRANSFERS, PlannedNode
from worker.probes import ping, tcp
from worker.publisher import Publisher
from worker.rows import Row, begin, hand_back, load_row, refuse
from worker.targets import look_up
from worker.transfers import transfers

logger = logging.getLogger(__name__)

Pairs = Sequence[tuple[int, int]]

#: Looked up in one script, which holds every locker for tens of microseconds.
ADDRESSES_AT_A_TIME = 64


def sweep(context: NodeContext, run: str, phase: int, performer: int) -> None:
    """
    Measure one node's row of a run for one probe.

    Raises:
        WireError: The arguments or the run's plan are damaged, or the row is another node's.
    """
    connection = wire.connect(context.redis_url)
    try:
        row = load_row(connection, run, phase, performer)
    except OtherWire as exc:
        refuse(connection, run, phase, performer, f"{context.name}: {exc}")
        return
    if row is None:
        logger.warning("run %s is gone; nothing to measure", run[:80])
        return
    context = context.now(connection)
    if row.name != context.name:
        raise ForeignWork(f"row {performer} of run {run} belongs to {row.name}")
    # Read before the row counts as begun: should Redis go away here, it is enqueued again.
    left = row.not_done(connection)
    if not left:
        logger.info("row %d of run %s has nothing left to measure", performer, run)
        return
    row, pairs, strangers = _split_allowed(context, connection, row, left)
    offset = begin(connection, row)
    if offset is None:
        logger.info("row %d of run %s is no longer wanted", performer, run)
        return
    with Publisher(
        connection,
        Outbox(context.outbox_path),
        run,
        bit_of=row.bit_of,
        seen_field=keyspace.seen_field(phase, performer),
        extra=offset,
    ) as publisher:
        for pair, error in strangers.items():
            publisher.put(row.finding(pair, Outcome.DENIED, error))
        _measure(context, connection, row, pairs, publisher)
    if context.should_stop():
        _hand_back(connection, row)


def _hand_back(connection: redis.Redis, row: Row) -> None:
    try:
        hand_back(connection, row)
    except redis.RedisError as exc:
        said = "row %d of run %s not handed back: %s"
        logger.log(wire.severity(exc), said, row.performer, row.run, exc)


def _measure(
    context: NodeContext,
    connection: redis.Redis,
    row: Row,
    pairs: Pairs,
    publisher: Publisher,
) -> None:
    started, waiting = time.monotonic(), {row.plan.bit(*pair): pair for pair in pairs}

    def should_stop() -> bool:
        return publisher.stopped.is_set() or context.should_stop()

    try:
        for measurement in _probe(context, connection, row, pairs, should_stop):
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


def _probe(
    context: NodeContext,
    connection: redis.Redis,
    row: Row,
    pairs: Pairs,
    should_stop: Callable[[], bool],
) -> Iterator[Measurement]:
    if row.probe in TRANSFERS:
        return transfers(context, connection, row, pairs, should_stop)
    if row.probe == "redis":
        options = row.plan.redis
        return redis_probe.measure(row.run, row.name, context.redis_url, options, should_stop)
    _sleep(row.plan.start_offset_s(row.performer), should_stop)
    if row.probe == "tcp":
        targets = [row.plan.nodes[target] for _, target in pairs]
        return tcp.measure(row.run, row.name, targets, row.plan.tcp, should_stop)
    return _ping(connection, row, pairs, should_stop)


def _ping(
    connection: redis.Redis, row: Row, pairs: Pairs, should_stop: Callable[[], bool]
) -> Iterator[Measurement]:
    """Ping; leave the round-trip times for the run's later phases, whose time-outs need them."""
    targets = [row.plan.nodes[target] for _, target in pairs]
    idle_ms: dict[str, float] = {}
    for measurement in ping.measure(row.run, row.name, targets, row.plan.ping, should_stop):
        median_ms = measurement.detail.get("rtt_median_ms")
        if median_ms is not None:
            idle_ms[measurement.target] = median_ms
        yield measurement
    if idle_ms and len(row.plan.probes) > row.phase + 1:
        _keep_idle_rtts(connection, row, idle_ms)


def _keep_idle_rtts(connection: redis.Redis, row: Row, idle_ms: dict[str, float]) -> None:
    try:
        packed = msgpack.packb(idle_ms)
        wire.note_in_run(connection, row.run, keyspace.rtt_field(row.performer), packed)
    except redis.RedisError as exc:
        logger.log(wire.severity(exc), "idle round-trip times not kept: %s", exc)


def _sleep(seconds: float, should_stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not should_stop() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))


Denied = dict[tuple[int, int], str]


def _split_allowed(
    context: NodeContext, connection: redis.Redis, row: Row, pairs: Pairs
) -> tuple[Row, list[tuple[int, int]], Denied]:
    """
    Part the pairs that may be measured from those that would measure somebody else.

    Returns:
        The row with literal addresses, those pairs, and the others with the reason.
    """
    others = {(t if s == row.performer else s) for s, t in pairs if s != t}
    nodes = {index: row.plan.nodes[index] for index in others}
    looked = look_up([node.address for node in nodes.values()], context.address)
    strange = {
        index: f"{node.name}: {objection}"
        for index, node in nodes.items()
        if (objection := looked[node.address].objection) is not None
    }
    if not context.policy.allow_unregistered_targets or row.probe in TRANSFERS:
        strange |= _unregistered(connection, nodes)
    good = [pair for pair in pairs if not strange.keys() & set(pair)]
    denied = {pair: strange[index] for pair in pairs for index in pair if index in strange}
    literal = tuple(
        replace(node, address=looked[node.address].literal or node.address)
        if index in others - strange.keys()
        else node
        for index, node in enumerate(row.plan.nodes)
    )
    return replace(row, plan=replace(row.plan, nodes=literal)), good, denied


def _unregistered(connection: redis.Redis, nodes: Mapping[int, PlannedNode]) -> dict[int, str]:
    """Give the nodes that the registry does not have at their address, with that reason."""
    keys = [keyspace.node_key(node.name) for node in nodes.values()]
    look_up_in = wire.script(connection, "addresses")
    registered = []
    for start in range(0, len(keys), ADDRESSES_AT_A_TIME):
        registered += look_up_in(keys[start : start + ADDRESSES_AT_A_TIME], [])
    return {
        index: f"{node.name} at {node.address} is not a registered node"
        for (index, node), address in zip(nodes.items(), registered, strict=True)
        if address != node.address.encode()
    }
