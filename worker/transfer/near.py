"""
Near's side of a row of tests that have two ends and saturate a link: one at a time.

With whatever far node is free: lease both; ask far's responder for a server; run the client; give
the lease up. Its parts are `turns`, `meeting` and `asking`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import redis

from worker.identity.context import NodeContext
from worker.identity.places import Moves
from worker.identity.proxies import BeforeTests
from worker.model.cost import questions_a_node
from worker.model.measurement import Measurement, Outcome
from worker.model.names import NodeName
from worker.model.plan import Encounter
from worker.model.policy import judge
from worker.probes.interception.interception import marked
from worker.probes.iperf3.record import with_other_way
from worker.probes.iperf3.tool import why_unable
from worker.probes.spent import spent
from worker.transfer.before import Before, read_before
from worker.transfer.leases import End, Lease, end_of
from worker.transfer.meeting import Meeting
from worker.transfer.turns import Turns
from worker.wire.connection import server
from worker.wire.connection.away import AWAY
from worker.wire.node_record import Record
from worker.wire.rows import Row

logger = logging.getLogger(__name__)

T = TypeVar("T")
ShouldStop = Callable[[], bool]

#: How often a Redis that is away is tried again.
AWAY_S = 1.0
NEITHER = (Outcome.UNREACHABLE, "neither of the two nodes accepts connections")


def patiently(call: Callable[[], T | None], should_stop: ShouldStop) -> T | None:
    """Call until Redis answers; None when stopped meanwhile."""
    waits = False
    while True:
        try:
            return call()
        except AWAY as exc:
            if not waits:
                logger.info("tests wait for Redis: %s", exc)
            waits = True
            if should_stop():
                return None
            time.sleep(AWAY_S)


def transfers(
    context: NodeContext,
    connection: redis.Redis,
    row: Row,
    pairs: Sequence[tuple[int, int]],
    moves: Moves,
    records: Mapping[NodeName, Record],
    should_stop: ShouldStop,
) -> Iterator[Measurement]:
    """
    Yield the measurements of a row's tests; whatever far node is free comes next.

    The pairs with one that has moved since the row looked, and read the records, are left to
    `moves`.
    """
    wanted = set(pairs)
    encounters = {
        row.plan.nodes[encounter.far].name: encounter
        for encounter in row.plan.encounters(row.probe, row.performer)
        if wanted & set(encounter.pairs)
    }
    near = _Near(context, connection, row, moves, should_stop)
    if (refused := near.own_refusal(0)) is not None:
        yield from near.all_refused(encounters, refused)
        return
    if not row.plan.nodes[row.performer].accepts:
        for far, encounter in list(encounters.items()):
            if not row.plan.nodes[encounter.far].accepts:
                yield from near.findings(encounters.pop(far), *NEITHER)
    if not encounters:
        return
    where = {far: row.plan.nodes[meets.far].address for far, meets in encounters.items()}
    tested, most = where if row.kind.is_over_tcp else {}, questions_a_node(row.plan)
    looked = BeforeTests(context, connection, tested, records, most, should_stop)
    has_budget = context.policy.max_bytes_per_day is not None
    before = patiently(
        lambda: read_before(connection, row, list(encounters), has_budget=has_budget), should_stop
    )
    if before is None:
        return
    if (refused := near.own_refusal(before.spent_bytes)) is not None:
        yield from near.all_refused(encounters, refused)
    # Not while a lease is held, which would lapse meanwhile.
    elif looked.wait():
        yield from near.take_turns(encounters, where, before, looked)


@dataclass
class _Near:
    context: NodeContext
    connection: redis.Redis
    row: Row
    moves: Moves
    should_stop: ShouldStop

    def take_turns(
        self,
        encounters: Mapping[NodeName, Encounter],
        where: Mapping[NodeName, str],
        before: Before,
        looked: BeforeTests,
    ) -> Iterator[Measurement]:
        """Test with each far node, by its name, as are their addresses."""
        row, connection = self.row, self.connection
        ends = {far: end_of(far, before.far[far]) for far in encounters if far in before.far}
        for far in encounters.keys() - ends.keys():
            error = f"{far}: its links or its daily budget in the registry are invalid"
            yield from self.findings(encounters[far], Outcome.DENIED, error)
        idle_ms = {
            far: rtt.median_ms
            for far, rtt in before.idle.items()
            if (far, rtt.address) in where.items()
        }
        tests = max((len(encounter.tests) for encounter in encounters.values()), default=1)
        cost_bytes = tests * (row.plan.test(row.probe).worst_case_bytes or 0)
        turns = Turns(
            connection=connection,
            near=self._own_end(),
            remaining=list(ends.values()),
            reserve_bytes=cost_bytes,
            should_stop=self.should_stop,
        )
        while True:
            lease = patiently(turns.take, self.should_stop)
            for far, whose in turns.pop_over_budget():
                error = (
                    f"{whose}: the test may cost {cost_bytes} bytes, more than is left for today"
                )
                yield from self.findings(encounters[far], Outcome.OVER_BUDGET, error)
            if lease is None:
                return
            yield from self._test(turns, lease, encounters[lease.far], looked, idle_ms)

    def _test(
        self,
        turns: Turns,
        lease: Lease,
        encounter: Encounter,
        looked: BeforeTests,
        idle_ms: Mapping[str, float],
    ) -> Iterator[Measurement]:
        """Test with far under the lease of both, and give it up; leave a far end that has moved."""
        row, far, found = self.row, lease.far, lease.found
        assert found is not None  # noqa: S101 - it was taken here
        address = row.plan.nodes[encounter.far].address
        if self.moves.left(far, found.far_address, encounter.pairs, address):
            _give_up(turns, lease, [])
            return
        # What has changed since the row began, which may be hours; its cost is reserved.
        self.context = self.context.now(self.connection, tests=True)
        turns.near = self._own_end()
        spent_bytes = max(0, found.near_spent_bytes - turns.reserve_bytes)
        refused, sign = self.own_refusal(spent_bytes), looked.sign(far)
        if refused is None and sign.error:
            refused = Outcome.INTERCEPTED, f"{row.name}: {sign.error}"
        if refused is not None:
            _give_up(turns, lease, [])
            yield from self.findings(encounter, *refused)
            return
        meeting = Meeting(
            connection=self.connection,
            iperf3=self.context.iperf3,
            row=row,
            encounter=encounter,
            lease=lease,
            idle_rtt_ms=idle_ms.get(far),
            should_stop=self.should_stop,
        )
        meeting.hold()
        asked = {(row.plan.nodes[s].name, row.plan.nodes[t].name) for s, t in encounter.pairs}
        try:
            # First, as whoever takes them publishes them in the meantime.
            yield from (marked(result, sign) for result in with_other_way(meeting.results, asked))
        finally:
            _give_up(turns, lease, [*meeting.results, *meeting.broken_off])

    def own_refusal(self, spent_bytes: int) -> tuple[Outcome, str] | None:
        """Return why this node itself does no such test, when others cost it so much today."""
        context, options = self.context, self.row.plan.test(self.row.probe)
        if obstacle := why_unable(context.iperf3, options):
            return Outcome.TOOL_MISSING, obstacle
        verdict = judge(context.policy, options, datetime.now().astimezone(), spent_bytes)
        return None if verdict is None else (verdict[0], f"{context.name}: {verdict[1]}")

    def all_refused(
        self, encounters: Mapping[NodeName, Encounter], refused: tuple[Outcome, str]
    ) -> Iterator[Measurement]:
        """Return why none of the pairs has numbers."""
        for encounter in encounters.values():
            yield from self.findings(encounter, *refused)

    def findings(self, encounter: Encounter, outcome: Outcome, error: str) -> Iterator[Measurement]:
        """Return why an encounter's pairs have no numbers."""
        return (self.row.finding(pair, outcome, error) for pair in encounter.pairs)

    def _own_end(self) -> End:
        """Return this node's end by its own settings: the registry's are others' to read."""
        policy = self.context.policy
        return End(
            name=self.context.name, links=policy.links, bytes_per_day=policy.max_bytes_per_day
        )


def _give_up(turns: Turns, lease: Lease, done: Sequence[Measurement]) -> None:
    """Settle what the tests cost: their reservation at least, where not all of it is known."""
    cost = spent(done)
    at_least = turns.reserve_bytes if cost.is_least else 0
    try:
        turns.finish(lease, spent_bytes=max(cost.bytes, at_least))
    except AWAY as exc:
        logger.log(
            server.severity(exc), "lease of %s not given up, it will lapse: %s", lease.far, exc
        )
