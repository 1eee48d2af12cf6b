"""
The tests of a row that have two ends and saturate a link: one at a time, under a lease of both.

A test of near with far: lease both; ask far's responder for a server (`serve`), which says its port
on the list `ptzmesh:ready:<token>`; run the client; give the lease up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import NamedTuple, TypeVar, cast

import redis

from worker.identity.context import NodeContext
from worker.identity.places import Moves
from worker.identity.proxies import BeforeTests
from worker.identity.sizes import path_mtu
from worker.model.cost import questions_a_node
from worker.model.errors import WireError
from worker.model.measurement import Measurement, Outcome
from worker.model.plan import Encounter, TargetNode
from worker.model.policy import TestRequest, judge
from worker.probes.interception.interception import Sign, marked
from worker.probes.iperf3 import client
from worker.probes.iperf3.carried import carried_bytes
from worker.probes.iperf3.client import Ends, findings, spent, with_other_way
from worker.probes.iperf3.tool import why_unable
from worker.transfer.asking import (
    LEASE_LOST,
    SERVER_MAY_HAVE_FAILED,
    Answer,
    Request,
    ask,
    last_word,
    no_longer_heard,
)
from worker.transfer.leases import End, Lease, read_ends, spent_today
from worker.transfer.turns import Keeper, Turns
from worker.wire import keyspace, rq_jobs, run_record
from worker.wire.connection import server
from worker.wire.connection.away import AWAY
from worker.wire.rows import Row, end_lost

logger = logging.getLogger(__name__)

T = TypeVar("T")
ShouldStop = Callable[[], bool]

#: What a test ends with whose far end died in it.
ENDS_AS_LOST = (Outcome.TIMEOUT, Outcome.BAD_REPLY, Outcome.NO_REPLY)
#: How often what passes by itself is tried again.
AWAY_S = 1.0
#: An idle round trip takes no longer; beyond this it is no measurement of ours.
MAX_RTT_MS = 60_000.0


class IdleRtt(NamedTuple):
    """
    What echoes of a run's ping phase took to a target, in milliseconds.

    Attributes:
        median_ms: The median.
        least_ms: The least of three or more; None of fewer.
        address: Where the target was then.
    """

    median_ms: float
    least_ms: float | None
    address: str


def transfers(
    context: NodeContext,
    connection: redis.Redis,
    row: Row,
    pairs: Sequence[tuple[int, int]],
    moves: Moves,
    should_stop: ShouldStop,
) -> Iterator[Measurement]:
    """
    Yield the measurements of a row's tests; whatever far node is free comes next.

    The pairs with one that has moved since the row looked are left to `moves`.
    """
    wanted = set(pairs)
    encounters = {
        row.plan.nodes[one.far].name: one
        for one in row.plan.encounters(row.probe, row.performer)
        if wanted & set(one.pairs)
    }
    refused = patiently(lambda: _own_refusal(context, connection, row), should_stop)
    if refused is not None:
        for one in encounters.values():
            yield from _findings(row, one, *refused)
        return
    near = row.plan.nodes[row.performer]
    for name, one in list(encounters.items()):
        if not near.accepts and not row.plan.nodes[one.far].accepts:
            yield from _findings(row, encounters.pop(name), *NEITHER)
    yield from _take_turns(context, connection, row, encounters, moves, should_stop)


NEITHER = (Outcome.UNREACHABLE, "neither of the two nodes accepts connections")


def _take_turns(
    context: NodeContext,
    connection: redis.Redis,
    row: Row,
    encounters: Mapping[str, Encounter],
    moves: Moves,
    should_stop: ShouldStop,
) -> Iterator[Measurement]:
    ends = patiently(lambda: read_ends(connection, list(encounters)), should_stop)
    idle = patiently(lambda: read_idle_rtts(connection, row), should_stop)
    looked = patiently(
        lambda: _look(context, connection, row, encounters, should_stop), should_stop
    )
    # Not while a lease is held, which would lapse meanwhile.
    if ends is None or idle is None or looked is None or not looked.wait():
        return
    where = {name: row.plan.nodes[one.far].address for name, one in encounters.items()}
    idle_ms = {n: rtt.median_ms for n, rtt in idle.items() if rtt.address == where.get(n)}
    tests = max((len(one.tests) for one in encounters.values()), default=1)
    cost = row.plan.transfer(row.probe).worst_case_bytes or 0
    turns = Turns(
        connection=connection,
        near=_own_end(context),
        remaining=[ends[name] for name in encounters],
        reserve_bytes=tests * cost,
        should_stop=should_stop,
    )
    told = 0
    while (lease := patiently(turns.take, should_stop)) or told < len(turns.over_budget):
        for name, whose in turns.over_budget[told:]:
            error = f"{whose}: the test may cost {tests * cost} bytes, more than is left for today"
            yield from _findings(row, encounters[name], Outcome.OVER_BUDGET, error)
        told = len(turns.over_budget)
        if lease is not None:
            one = encounters[lease.far]
            left = partial(moves.left, lease.far, one.pairs, where[lease.far])
            if patiently(left, should_stop):
                _give_up(turns, lease, [])
                continue
            # What has changed since the row began, which may be hours; its cost is reserved.
            context = context.now(connection, tests=True)
            turns.near = _own_end(context)
            own = partial(_own_refusal, context, connection, row, reserved=cost)
            if (refused := patiently(own, should_stop)) is not None:
                found = list(_findings(row, one, *refused))
                _give_up(turns, lease, found)
                yield from found
                continue
            sign = looked.sign(lease.far)
            found, broken_off = (
                (_intercepted(row, one, sign), [])
                if sign.error
                else _meet(context, connection, row, one, lease, idle_ms, should_stop)
            )
            _give_up(turns, lease, [*found, *broken_off])
            asked = {(row.plan.nodes[s].name, row.plan.nodes[t].name) for s, t in one.pairs}
            yield from (marked(measurement, sign) for measurement in with_other_way(found, asked))


def _own_end(context: NodeContext) -> End:
    """Give this node's own end by its own settings: the registry's are others' to read."""
    policy = context.policy
    return End(name=context.name, links=policy.links, bytes_per_day=policy.max_bytes_per_day)


def _intercepted(row: Row, encounter: Encounter, sign: Sign) -> list[Measurement]:
    return list(_findings(row, encounter, Outcome.INTERCEPTED, f"{row.name}: {sign.error}"))


def _look(
    context: NodeContext,
    connection: redis.Redis,
    row: Row,
    encounters: Mapping[str, Encounter],
    should_stop: ShouldStop,
) -> BeforeTests:
    """Begin to look for proxies before those that a row tests over TCP."""
    tested = encounters if row.probe == "throughput" else {}
    addresses = {name: row.plan.nodes[one.far].address for name, one in tested.items()}
    most = questions_a_node(row.plan)
    return BeforeTests(context, connection, addresses, most, should_stop)


def patiently(call: Callable[[], T | None], should_stop: ShouldStop) -> T | None:
    """Call until Redis answers; None when told to stop meanwhile."""
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


def _give_up(turns: Turns, lease: Lease, done: Sequence[Measurement]) -> None:
    """Settle what the tests cost: their reservation at least, where nobody knows all of it."""
    cost = spent(done)
    at_least = turns.reserve_bytes if cost.is_least else 0
    try:
        turns.finish(lease, spent_bytes=max(cost.bytes, at_least))
    except AWAY as exc:
        logger.log(
            server.severity(exc), "lease of %s not given up, it will lapse: %s", lease.far, exc
        )


def _meet(
    context: NodeContext,
    connection: redis.Redis,
    row: Row,
    encounter: Encounter,
    lease: Lease,
    idle_ms: Mapping[str, float],
    should_stop: ShouldStop,
) -> tuple[list[Measurement], list[Measurement]]:
    """
    Do the tests with one far node, under the lease of both.

    Returns:
        What was found; and of a test that was ended with its row, which is measured again or
        wanted by nobody, what it moved.
    """
    near, far = row.plan.nodes[row.performer], row.plan.nodes[encounter.far]
    assert isinstance(far, TargetNode)  # noqa: S101 - `sweep` leaves no other pair
    # Of a test with a bound the worst case is reserved.
    is_bounded = row.plan.transfer(row.probe).worst_case_bytes is not None
    carried = None if is_bounded else partial(carried_bytes, far.address)
    keeper = Keeper(connection, lease, carried=carried)
    found: list[Measurement] = []
    for number, options in enumerate(encounter.tests):
        request = Request(row, encounter, number, f"{lease.token}.{number}", idle_ms.get(far.name))
        try:
            answer = ask(connection, request, keeper, should_stop)
        except AWAY as exc:
            answer = Answer(outcome=Outcome.TIMEOUT, error=f"Redis was away: {exc}")
        if answer is None:
            return found, []
        ends = Ends(
            run=row.run, near=near, far=far, port=answer.port, far_version=answer.version or None
        )
        if answer.gone:
            found += _without_far(
                findings(ends, options, answer.outcome, ""), far.name, answer.gone
            )
            continue
        if answer.outcome is not Outcome.OK:
            found += findings(ends, options, answer.outcome, answer.error)
            continue
        measured = client.measure(
            ends,
            options,
            iperf3=context.iperf3,
            idle_rtt_ms=request.idle_rtt_ms,
            should_stop=lambda: should_stop() or keeper.lost(),
            find_mtu=partial(path_mtu, connection, near.name, far.name),
        )
        if measured[0].outcome is Outcome.CANCELLED:
            if should_stop():
                return found, measured
            measured = [
                replace(one, outcome=Outcome.TARGET_BUSY, error=LEASE_LOST) for one in measured
            ]
        measured = _with_last_word(connection, request, measured)
        found += _unless_lost(connection, far.name, measured)
    return found, []


def _without_far(found: list[Measurement], far: str, why: str) -> list[Measurement]:
    """Say of each pair at which of its ends the far node is, which is gone."""
    return [
        replace(one, outcome=outcome, error=error)
        for one in found
        for outcome, error in [end_lost(one.source, far, why)]
    ]


def _with_last_word(
    connection: redis.Redis, request: Request, measured: list[Measurement]
) -> list[Measurement]:
    """Add what the far end says of its own failure, of which this end saw the consequence."""
    if measured[0].outcome not in SERVER_MAY_HAVE_FAILED or not (
        said := last_word(connection, request)
    ):
        return measured
    return [replace(one, error=f"{said} (here: {one.error})") for one in measured]


def _unless_lost(
    connection: redis.Redis, far: str, measured: list[Measurement]
) -> list[Measurement]:
    """Say of a test that failed whether its far end is gone by now."""
    if measured[0].outcome not in ENDS_AS_LOST:
        return measured
    try:
        gone = no_longer_heard(connection, far)
    except AWAY as exc:
        logger.debug("it is not known whether %s is gone: %s", far, exc)
        return measured
    if not gone:
        return measured
    return [
        replace(one, outcome=outcome, error=f"{error} (here: {one.error})")
        for one in measured
        for outcome, error in [end_lost(one.source, far, gone)]
    ]


def _own_refusal(
    context: NodeContext, connection: redis.Redis, row: Row, *, reserved: int = 0
) -> tuple[Outcome, str] | None:
    """Say why this node itself does not do such a test, for which so much is reserved, or None."""
    options = row.plan.transfer(row.probe)
    obstacle = why_unable(context.iperf3, options)
    if obstacle is not None:
        return Outcome.TOOL_MISSING, obstacle
    spent = 0
    if context.policy.max_bytes_per_day is not None:
        spent = spent_today(connection, [context.name])[context.name] - reserved
    own = replace(context.policy, sources=frozenset())
    request = TestRequest(source=context.name, options=options)
    verdict = judge(own, request, datetime.now().astimezone(), spent)
    return None if verdict is None else (verdict[0], f"{context.name}: {verdict[1]}")


def _findings(
    row: Row, encounter: Encounter, outcome: Outcome, error: str
) -> Iterator[Measurement]:
    return (row.finding(pair, outcome, error) for pair in encounter.pairs)


def read_idle_rtts(connection: redis.Redis, row: Row) -> dict[str, IdleRtt]:
    """Give what the run's ping phase measured from this node, by target."""
    field = run_record.rtt_field(row.performer)
    packed = cast("bytes | None", connection.hget(keyspace.run_key(row.run), field))
    if packed is None:
        return {}
    try:
        return unpack_rtts(packed)
    except WireError as exc:
        logger.warning("what echoes of the run took is not known: %s", exc)
        return {}


def unpack_rtts(packed: bytes) -> dict[str, IdleRtt]:
    """
    Read round-trip times by target.

    Raises:
        WireError: They are none.
    """
    raw = rq_jobs.MsgpackSerializer.loads(packed)
    if not isinstance(raw, dict) or not all(
        isinstance(name, str) and _is_idle_rtt(times) for name, times in raw.items()
    ):
        raise WireError("idle round-trip times are not milliseconds by target")
    return {name: IdleRtt(*rtt) for name, rtt in raw.items()}


def _is_idle_rtt(rtt: object) -> bool:
    return (
        isinstance(rtt, (list, tuple))
        and len(rtt) == len(IdleRtt._fields)
        and _is_ms(rtt[0])
        and (rtt[1] is None or _is_ms(rtt[1]))
        and isinstance(rtt[2], str)
    )


def _is_ms(value: object) -> bool:
    return isinstance(value, (int, float)) and type(value) is not bool and 0 <= value < MAX_RTT_MS
