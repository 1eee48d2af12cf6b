"""
The RQ job `serve`: a node answers one test, if its own limits let it.

It answers a token that holds this node's lease and no other, so that nothing listens unasked.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from datetime import datetime

import redis

from worker.identity.context import NodeContext
from worker.identity.own_address import listening_address
from worker.model.errors import ForeignWork, OtherWire
from worker.model.measurement import Outcome
from worker.model.plan import TRANSFERS, Encounter
from worker.model.policy import TestRequest, judge
from worker.probes.iperf3.client import Options, deadline_s
from worker.probes.iperf3.server import Served, serve_one_test
from worker.probes.iperf3.tool import why_unable
from worker.transfer.leases import holds, spent_today
from worker.transfer.near import MAX_RTT_MS
from worker.wire import keyspace, rq_jobs
from worker.wire.connection import server
from worker.wire.rows import Row, load_row

logger = logging.getLogger(__name__)

#: The client connects at once; this is for a path whose handshake takes seconds.
IDLE_S = 15.0
#: How often it is asked whether the test is still wanted; a responder that waits for a client that
#: never comes answers nobody else.
HELD_LOOK_S = 1.0
#: The server may outlive the client's own deadline by this.
MARGIN_S = 5.0
#: The word is of no use to anybody after this long.
READY_TTL_S = 60


def serve(
    context: NodeContext,
    run: str,
    phase: int,
    performer: int,
    token: str,
    number: int,
    family: int,
    idle_rtt_ms: float | None,
) -> None:
    """
    Answer one test that a performer asks for; `family` is the version of IP by which it comes.

    Raises:
        WireError: The arguments are not what they should be, or the test is not one of the run's.
    """
    connection = server.connect(context.redis_url)
    if not isinstance(token, str) or not holds(connection, context.name, token.partition(".")[0]):
        # It came late, twice or from who has died since: of a link or a Redis that was away.
        logger.info("a test of run %s is no longer wanted: its lease is over", run[:80])
        return
    key = keyspace.ready_key(token)
    try:
        row = load_row(connection, run, phase, performer)
    except OtherWire as exc:
        logger.warning("a test of run %s is refused: %s", run[:80], exc)
        _say(connection, key, outcome=Outcome.DENIED, error=f"{context.name}: {exc}")
        return
    if row is None:
        logger.warning("run %s is gone; nothing to answer", run[:80])
        return
    context = context.now(connection, tests=True)
    encounter, options = _asked_for(context, row, number)
    refusal = _refusal(context, connection, row, encounter, options)
    if refusal is not None:
        _say(connection, key, outcome=refusal[0], error=f"{context.name}: {refusal[1]}")
        return
    address = listening_address(context.address, family)
    if address is None:
        error = (
            f"{context.name}: no IPv{family} address of {context.address} is one of this machine"
        )
        _say(connection, key, outcome=Outcome.UNREACHABLE, error=error)
        return
    iperf3, unwanted = context.iperf3, _Unwanted(context, token.partition(".")[0])
    ended = serve_one_test(
        iperf3,
        address,
        context.policy.port_range,
        idle_s=IDLE_S,
        deadline_s=deadline_s(options, _rtt(idle_rtt_ms)) + MARGIN_S,
        on_ready=lambda port: _say(connection, key, port=port, version=iperf3.text),
        should_stop=unwanted,
        max_mbps=context.policy.max_bitrate_mbps,
    )
    if ended.port is None or ended.outcome is Outcome.BAD_REPLY:
        # Also after the port: who asked sees no more than that the connection was closed.
        _say(connection, key, outcome=ended.outcome, error=f"{context.name}: {ended.error}")
    logger.info(
        "serve done run=%s probe=%s asker=%s outcome=%s %s",
        run, row.probe, row.name, ended.outcome.value, unwanted.why(ended) or ended.error,
    )  # fmt: skip


@dataclass
class _Unwanted:
    """
    Tells whether whoever asked has given up: its lease is released, or has lapsed.

    A server whose test has ended well ends by itself a moment later, and has until the next look.
    """

    context: NodeContext
    token: str
    look_at: float = field(default_factory=lambda: time.monotonic() + HELD_LOOK_S)
    is_over: bool = False

    def __post_init__(self) -> None:
        # A silent Redis must not hold up the server's own deadline.
        self.connection = server.connect(
            self.context.redis_url, socket_timeout_s=1.0, connect_timeout_s=1.0, retries=0
        )

    def __call__(self) -> bool:
        if self.context.should_stop():
            return True
        if time.monotonic() < self.look_at:
            return False
        self.look_at = time.monotonic() + HELD_LOOK_S
        was_over = self.is_over
        try:
            self.is_over = not holds(self.connection, self.context.name, self.token)
        except redis.RedisError:
            return False
        return was_over and self.is_over

    def why(self, ended: Served) -> str:
        """Say why a test was cancelled; nothing when it was not."""
        if ended.outcome is not Outcome.CANCELLED:
            return ""
        if not self.is_over:
            return "the node was told to stop"
        return "its asker gave it up" + ("" if ended.has_client else " before it connected")


def _asked_for(context: NodeContext, row: Row, number: int) -> tuple[Encounter, Options]:
    """Find the test in the run's own plan."""
    if row.probe not in TRANSFERS:
        raise ForeignWork(f"probe {row.probe} is not one that is answered")
    for one in row.plan.encounters(row.probe, row.performer):
        if row.plan.nodes[one.far].name == context.name:
            if type(number) is int and 0 <= number < len(one.tests):
                return one, one.tests[number]
            break
    raise ForeignWork(f"run {row.run} has no such test of {row.name} with {context.name}")


def _refusal(
    context: NodeContext,
    connection: redis.Redis,
    row: Row,
    encounter: Encounter,
    options: Options,
) -> tuple[Outcome, str] | None:
    obstacle = why_unable(context.iperf3, options)
    if obstacle is not None:
        return Outcome.TOOL_MISSING, obstacle
    if connection.hget(keyspace.node_key(row.name), "address") is None:
        return Outcome.DENIED, f"{row.name} is not a registered node"
    # What these tests may cost was reserved with the lease, and is part of what is spent.
    reserved = len(encounter.tests) * (options.worst_case_bytes or 0)
    spent = spent_today(connection, [context.name])[context.name] - reserved
    request = TestRequest(source=row.name, options=options)
    return judge(context.policy, request, datetime.now().astimezone(), max(0, spent))


def _say(
    connection: redis.Redis,
    key: str,
    *,
    port: int = 0,
    version: str = "",
    outcome: Outcome = Outcome.OK,
    error: str = "",
) -> None:
    word = {"port": port, "version": version, "outcome": outcome.value, "error": error}
    pipeline = connection.pipeline()
    pipeline.rpush(key, rq_jobs.MsgpackSerializer.dumps(word))
    pipeline.expire(key, READY_TTL_S)
    pipeline.execute()


def _rtt(idle_rtt_ms: object) -> float | None:
    if isinstance(idle_rtt_ms, (int, float)) and not isinstance(idle_rtt_ms, bool):
        return min(MAX_RTT_MS, max(0.0, idle_rtt_ms)) if math.isfinite(idle_rtt_ms) else None
    return None
