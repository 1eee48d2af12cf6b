"""
The RQ job `serve`: far answers one test, if its own limits let it.

It answers a token that holds this node's lease and no other, so that nothing listens unasked.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import datetime

import redis

from worker.identity.context import NodeContext
from worker.identity.own_address import listening_address
from worker.model.errors import ForeignWork, OtherWire
from worker.model.measurement import Outcome
from worker.model.names import IpLiteral
from worker.model.options import deadline_s
from worker.model.plan import Encounter
from worker.model.policy import judge
from worker.probes.iperf3.record import Options
from worker.probes.iperf3.server import Served, serve_one_test
from worker.probes.iperf3.tool import why_unable
from worker.transfer.answer import Answer, Request, send_answer
from worker.transfer.idle_rtt import MAX_RTT_MS
from worker.transfer.leases import ask_holder, asking_spent, holds, is_token
from worker.wire import rq_jobs, run_record
from worker.wire.connection import server
from worker.wire.connection.way import allowing
from worker.wire.node_record import Record
from worker.wire.registry import asking_parts
from worker.wire.round_trip import together
from worker.wire.rows import Row, row_of, too_old

logger = logging.getLogger(__name__)

#: The client connects at once; this is for a path whose handshake takes seconds.
IDLE_S = 15.0
#: How often the lease is looked at; a responder that waits for a client that never comes answers
#: nobody else.
HELD_LOOK_S = 1.0
#: A Redis that does not answer such a look in this time is not waited for.
SILENT_S = 1.0
#: The server may outlive the client's own deadline by this.
MARGIN_S = 5.0


def serve(context: NodeContext, request: Request) -> None:
    """
    Answer one test that near asks for.

    Raises:
        WireError: The request is not what it should be, or the test is not one of the run's.
    """
    connection = rq_jobs.connection_of_job(context.redis_url)

    def ask(pipeline: redis.client.Pipeline) -> None:
        ask_holder(pipeline, context.name)
        run_record.ask_plan(pipeline, request.run)

    holder, plan = rq_jobs.ask_first(connection, ask)
    if not is_token(holder, request.lease_token):
        # It came late, twice or from a node that has died: of a link or a Redis that was away.
        logger.info("a test of run %s is no longer wanted: its lease is over", request.run[:80])
        return
    if (failure := _answer(context, connection, request, plan)) is not None:
        outcome, error = failure
        answer = Answer(outcome=outcome, error=f"{context.name}: {error}")
        send_answer(connection, request.token, answer)


def _answer(
    context: NodeContext, connection: redis.Redis, request: Request, packed: bytes | None
) -> tuple[Outcome, str] | None:
    """Answer the test of a packed plan; return why it is refused, or why its server failed."""
    try:
        plan = run_record.plan_of(packed)
    except OtherWire as exc:
        logger.warning("a test of run %s is refused: %s", request.run[:80], exc)
        return Outcome.DENIED, str(exc)
    if plan is None:
        logger.warning("run %s is gone; nothing to answer", request.run[:80])
        return None
    row = row_of(request.run, plan, request.phase, request.performer)
    if reason := too_old(row):
        return Outcome.TOOL_MISSING, reason
    context = context.now(connection, tests=True)
    encounter, options = _asked_for(context, row, request.number)
    if refusal := _refusal(context, connection, row, encounter, options):
        return refusal
    address = listening_address(context.address, request.family)
    if address is None:
        error = f"no IPv{request.family} address of {context.address} is one of this machine"
        return Outcome.UNREACHABLE, error
    unwanted = _Unwanted(context, request.lease_token)
    ended = _serve_at(address, context, connection, request, options, unwanted)
    logger.info(
        "serve done run=%s probe=%s near=%s outcome=%s %s",
        row.run, row.probe, row.name, ended.outcome.value, unwanted.why(ended) or ended.error,
    )  # fmt: skip
    # Also after the port: near sees no more than that the connection was closed.
    has_failed = ended.port is None or ended.outcome is Outcome.BAD_REPLY
    return (ended.outcome, ended.error) if has_failed else None


def _serve_at(
    address: IpLiteral,
    context: NodeContext,
    connection: redis.Redis,
    request: Request,
    options: Options,
    unwanted: _Unwanted,
) -> Served:
    rtt_ms, iperf3 = request.idle_rtt_ms, context.iperf3
    if rtt_ms is not None:
        rtt_ms = min(MAX_RTT_MS, max(0.0, rtt_ms))

    def send_port(port: int) -> None:
        send_answer(connection, request.token, Answer(port=port, version=iperf3.text))

    return serve_one_test(
        iperf3,
        address,
        context.policy.port_range,
        idle_s=IDLE_S,
        deadline_s=deadline_s(options, rtt_ms) + MARGIN_S,
        on_ready=send_port,
        should_stop=unwanted,
        max_mbps=context.policy.max_bitrate_mbps,
    )


@dataclass
class _Unwanted:
    """
    Whether near has given the test up: its lease is released, or has lapsed.

    A server whose test has ended well ends by itself a moment later, and has until the next look.
    """

    context: NodeContext
    token: str
    look_at: float = field(default_factory=lambda: time.monotonic() + HELD_LOOK_S)
    is_over: bool = False

    def __post_init__(self) -> None:
        # A silent Redis must not hold up the server's own deadline.
        silent_s = allowing(SILENT_S, 2)
        self.connection = server.connect(
            self.context.redis_url, socket_timeout_s=silent_s, connect_timeout_s=silent_s, retries=0
        )

    def __call__(self) -> bool:
        if self.context.should_stop():
            return True
        if time.monotonic() < self.look_at:
            return False
        self.look_at = time.monotonic() + allowing(HELD_LOOK_S, 2)
        was_over = self.is_over
        try:
            self.is_over = not holds(self.connection, self.context.name, self.token)
        except redis.RedisError:
            return False
        return was_over and self.is_over

    def why(self, ended: Served) -> str:
        """Return why a test was cancelled; nothing when it was not."""
        if ended.outcome is not Outcome.CANCELLED:
            return ""
        if not self.is_over:
            return "the node was stopped"
        return "near gave it up" + ("" if ended.has_client else " before it connected")


def _asked_for(context: NodeContext, row: Row, number: int) -> tuple[Encounter, Options]:
    if not row.kind.has_two_ends:
        raise ForeignWork(f"probe {row.probe} is not one that is answered")
    for encounter in row.plan.encounters(row.probe, row.performer):
        is_ours = row.plan.nodes[encounter.far].name == context.name
        if is_ours and 0 <= number < len(encounter.tests):
            return encounter, encounter.tests[number]
    raise ForeignWork(f"run {row.run} has no such test of {row.name} with {context.name}")


def _refusal(
    context: NodeContext,
    connection: redis.Redis,
    row: Row,
    encounter: Encounter,
    options: Options,
) -> tuple[Outcome, str] | None:
    if obstacle := why_unable(context.iperf3, options):
        return Outcome.TOOL_MISSING, obstacle
    so_far, near = together(
        connection, asking_spent([context.name]), asking_parts([row.name], Record)
    )
    if not near:
        return Outcome.DENIED, f"{row.name} is not a registered node"
    # What these tests may cost was reserved with the lease, and is part of what is spent.
    reserved = len(encounter.tests) * (options.worst_case_bytes or 0)
    spent = so_far[context.name] - reserved
    now = datetime.now().astimezone()
    return judge(context.policy, options, now, max(0, spent), near=row.name)
