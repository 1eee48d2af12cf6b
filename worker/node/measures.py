"""How a node measures its row of a run: for each probe of `worker.model.probe`, one function."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgpack
import redis

from worker.host.resolve import LOOK_UP_S
from worker.identity.context import NodeContext
from worker.identity.identity import Allowance
from worker.identity.places import Moves, addresses_of, at_present
from worker.identity.proxies import settle
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
from worker.model.measurement import Measurement, Outcome
from worker.model.names import NodeName
from worker.model.plan import TargetNode
from worker.node import redis_probe
from worker.probes import ping, tcp
from worker.probes.interception.interception import LEAST_TIMES, with_echoes
from worker.transfer.idle_rtt import IdleRtt, read_idle_rtts
from worker.transfer.near import patiently, transfers
from worker.wire import run_record
from worker.wire.connection import server
from worker.wire.node_record import Record
from worker.wire.rows import Row, too_old

logger = logging.getLogger(__name__)

ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class Work:
    """What is left of a row, and where the registry says that its nodes are now."""

    context: NodeContext
    connection: redis.Redis
    row: Row
    pairs: Pairs
    targets: Targets
    moves: Moves
    whose: Whose

    @property
    def options(self) -> Any:
        """The options of the row's probe."""
        return self.row.plan.options[self.row.probe]


def work_on(
    context: NodeContext,
    connection: redis.Redis,
    row: Row,
    pairs: Pairs,
    others: Collection[int],
    records: Mapping[NodeName, Record],
) -> tuple[Work, Mapping[int, str]]:
    """Find what may be measured, where its nodes are now; and the strangers, each with a reason."""
    addresses = addresses_of(records)
    row = at_present(row, {**addresses, row.name: context.address})
    targets = targets_of(context, row, others)
    strangers = strangers_of(context, row, others, addresses)
    pairs = [pair for pair in pairs if other(row, pair) not in strangers]
    moves = Moves(addresses, row.plan.family)
    allowed = Allowance(questions_a_node(row.plan))
    whose = Whose(context=context, row=row, records=records, allowed=allowed)
    return Work(context, connection, row, pairs, targets, moves, whose), strangers


def _ping(work: Work, should_stop: ShouldStop) -> Iterator[Measurement]:
    """Ping; the run's later phases get the round-trip times, which their time-outs need."""
    row, idle = work.row, dict[str, IdleRtt]()

    def measure(nodes: Sequence[TargetNode]) -> Iterator[Measurement]:
        return ping.measure(row.run, row.name, nodes, work.options, should_stop)

    for measurement in _by_address(work, measure, should_stop):
        trips = measurement.round_trips
        if trips is not None and trips.rtt_median_ms is not None:
            # The least of too few is chance.
            least_ms = trips.rtt_min_ms if trips.received >= LEAST_TIMES else None
            idle[measurement.target] = IdleRtt(trips.rtt_median_ms, least_ms, measurement.address)
        yield measurement
    if idle and len(row.plan.probes) > row.phase + 1:
        try:
            packed = msgpack.packb(idle)
            run_record.note(work.connection, row.run, run_record.rtt_field(row.performer), packed)
        except redis.RedisError as exc:
            logger.log(server.severity(exc), "idle round-trip times not kept: %s", exc)


def _tcp(work: Work, should_stop: ShouldStop) -> Iterator[Measurement]:
    """Time handshakes; what they took is compared with the least of the echoes before them."""
    row, options = work.row, work.options
    try:
        idle = read_idle_rtts(work.connection, row)
    except redis.RedisError as exc:
        idle = {}
        logger.log(server.severity(exc), "handshakes are not compared with echoes: %s", exc)

    def measure(nodes: Sequence[TargetNode]) -> Iterator[Measurement]:
        names = {(str(node.address), options.port): node.name for node in nodes}
        most = questions_a_node(row.plan)
        settled = partial(settle, work.context, work.connection, names, most, should_stop)
        return tcp.measure(row.run, row.name, nodes, options, should_stop, settled)

    for measurement in _by_address(work, measure, should_stop):
        rtt = idle.get(measurement.target)
        is_there = rtt is not None and rtt.address == measurement.address
        yield with_echoes(measurement, rtt.least_ms) if rtt and is_there else measurement


def _redis(work: Work, should_stop: ShouldStop) -> Iterator[Measurement]:
    row, url = work.row, work.context.redis_url
    return redis_probe.measure(row.run, row.name, url, work.options, should_stop)


def _tests(work: Work, should_stop: ShouldStop) -> Iterator[Measurement]:
    """Test; a far node that has moved since is looked up and judged where it is, and comes last."""
    context, connection, row, moves = work.context, work.connection, work.row, work.moves
    looked = work.targets.judged(LOOK_UP_S, should_stop)
    ready, findings = with_addresses(row, work.pairs, looked)
    yield from findings
    parted = work.whose.part(ready, should_stop)
    yield from parted.findings
    literal = with_literals(row, parted.ready)
    pairs, known = list(parted.ready), work.whose.records
    measured = transfers(context, connection, literal, pairs, moves, known, should_stop)
    yield from parted.marked(measured)
    if not moves.pairs or should_stop():
        return
    others = {other(row, pair) for pair in moves.pairs}
    records = patiently(lambda: read_row_records(connection, row, others), should_stop)
    if records is None:
        return
    again, strangers = work_on(context, connection, row, moves.pairs, others, records)
    yield from denied(again.row, moves.pairs, strangers)
    yield from _tests(again, should_stop)


#: How the row of each probe is measured.
MEASURES: Mapping[str, Callable[[Work, ShouldStop], Iterator[Measurement]]] = {
    "ping": _ping,
    "tcp": _tcp,
    "redis": _redis,
    "throughput": _tests,
    "udp": _tests,
}


def measure(work: Work, should_stop: ShouldStop) -> Iterator[Measurement]:
    """Measure a row; where this ptzmesh is too old for its probe, say so of each pair."""
    row = work.row
    if reason := too_old(row):
        error = f"{row.name}: {reason}"
        return (row.finding(pair, Outcome.TOOL_MISSING, error) for pair in work.pairs)
    return MEASURES[row.probe](work, should_stop)


def _by_address(
    work: Work,
    measure: Callable[[Sequence[TargetNode]], Iterator[Measurement]],
    should_stop: ShouldStop,
) -> Iterator[Measurement]:
    """Measure first the nodes that have an address at once, then those that get one meanwhile."""
    row = work.row
    for looked in work.targets.batches(should_stop):
        now = [pair for pair in work.pairs if row.plan.nodes[other(row, pair)].address in looked]
        ready, findings = with_addresses(row, now, looked)
        yield from findings
        parted = work.whose.part(ready, should_stop)
        yield from parted.findings
        if parted.ready:
            yield from parted.marked(measure(list(parted.ready.values())))
