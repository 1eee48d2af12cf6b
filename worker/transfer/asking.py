"""
Asking the other node of a test for a server, and what its responder says.

Its word comes on the list `ptzmesh:ready:<token>`: a port, or why not.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import redis

from worker.model.errors import WireError
from worker.model.fields import exact_count
from worker.model.measurement import Outcome
from worker.model.plan import Encounter
from worker.probes.iperf3 import client
from worker.probes.iperf3.client import Options
from worker.transfer.turns import Keeper
from worker.wire import keyspace, node_record, rq_jobs
from worker.wire.connection.away import AWAY
from worker.wire.rows import Row, not_heard

logger = logging.getLogger(__name__)

#: A responder that is idle answers within 50 ms; one that carries a run on may take longer.
READY_S = 8.0
#: Whoever takes a request says so to RQ at once.
ASTRAY_S = 2.5
LEASE_LOST = "the lease was lost in the middle of the test: Redis was away for too long"
#: A server that failed has ended before its client knows; then its responder says why.
LAST_WORD_S = 2.0
#: What a client's test ends with whose server failed.
SERVER_MAY_HAVE_FAILED = (Outcome.BAD_REPLY, Outcome.TIMEOUT, Outcome.REFUSED)
#: How long one look for the responder's word lasts, so that the lease is renewed in between.
LOOK_S = 1


@dataclass(frozen=True)
class Answer:
    """
    The responder's word: a port and its iperf3's version, or why not.

    `gone` is said here and not there: why nobody answers, of whichever end of the pair that is.
    """

    port: int = 0
    version: str = ""
    outcome: Outcome = Outcome.OK
    error: str = ""
    gone: str = ""


@dataclass(frozen=True)
class Request:
    """What a far node's responder is asked for: a server for one test of an encounter."""

    row: Row
    encounter: Encounter
    number: int
    token: str
    idle_rtt_ms: float | None

    @property
    def far(self) -> str:
        """Name of the node that is asked."""
        return self.row.plan.nodes[self.encounter.far].name


def ask(
    connection: redis.Redis, request: Request, keeper: Keeper, should_stop: Callable[[], bool]
) -> Answer | None:
    """Ask the far node's responder for a server; None when told to stop."""
    far = request.far
    if gone := no_longer_heard(connection, far):
        return Answer(outcome=Outcome.TARGET_LOST, gone=gone)
    job_id = _enqueue_serve(connection, request)
    asked_at = time.monotonic()
    until = asked_at + READY_S
    while time.monotonic() < until and not keeper.lost():
        said = connection.blpop([keyspace.ready_key(request.token)], timeout=LOOK_S)
        if said is not None:
            return unpack_answer(cast(bytes, said[1]))
        if should_stop():
            return None
        if time.monotonic() - asked_at > ASTRAY_S and _is_astray(connection, far, job_id):
            logger.warning("a test's request to %s went astray, and is sent again", far)
            job_id = _enqueue_serve(connection, request)
            asked_at = time.monotonic()
    if keeper.lost():
        return Answer(outcome=Outcome.TARGET_BUSY, error=LEASE_LOST)
    if connection.hget(keyspace.node_key(far), "stopped"):
        return Answer(outcome=Outcome.TARGET_LOST, gone="was stopped")
    if gone := no_longer_heard(connection, far):
        return Answer(outcome=Outcome.TARGET_LOST, gone=gone)
    error = f"the responder of {far} did not answer within {READY_S:.0f} s"
    return Answer(outcome=Outcome.TIMEOUT, error=error)


def no_longer_heard(connection: redis.Redis, far: str) -> str:
    """Say for how long a node was not heard, where it counts as lost; else nothing."""
    silent_s = node_record.missing_s(connection, [far])[far]
    return not_heard(silent_s) if silent_s > node_record.ALIVE_S else ""


def last_word(connection: redis.Redis, request: Request) -> str:
    """Give why the far end's server failed, as its responder says after the test; else nothing."""
    until = time.monotonic() + LAST_WORD_S
    try:
        while (left_s := until - time.monotonic()) > 0:
            said = connection.blpop([keyspace.ready_key(request.token)], timeout=max(0.01, left_s))
            if said is None:
                return ""
            answer = unpack_answer(cast(bytes, said[1]))
            if answer.outcome is not Outcome.OK:  # the port of a request that was sent again
                return answer.error
    except AWAY as exc:
        logger.debug("no last word of %s: %s", request.far, exc)
    return ""


def _enqueue_serve(connection: redis.Redis, request: Request) -> str:
    """Ask for a server; give the job's id."""
    row = request.row
    job_id, pipeline = f"serve-{row.run}-{secrets.token_hex(6)}", connection.pipeline()
    rq_jobs.enqueue(
        connection,
        pipeline,
        keyspace.serve_queue(request.far),
        keyspace.SERVE,
        {
            "run": row.run,
            "phase": row.phase,
            "performer": row.performer,
            "token": request.token,
            "number": request.number,
            "family": 6 if ":" in row.plan.nodes[request.encounter.far].address else 4,
            "idle_rtt_ms": request.idle_rtt_ms,
        },
        job_id=job_id,
        timeout_s=_serve_timeout_s(request.encounter.tests[request.number], request.idle_rtt_ms),
        at_front=True,
    )
    pipeline.execute()
    return job_id


def _is_astray(connection: redis.Redis, far: str, job_id: str) -> bool:
    """
    Tell whether a job was taken from its queue by nobody who lives.

    Of a node that was cut off in silence Redis keeps the blocked connection for most of a minute,
    and gives it the first job that comes when the node has long been back on another.
    """
    pipeline = connection.pipeline(transaction=False)
    pipeline.lpos(keyspace.queue_key(keyspace.serve_queue(far)), job_id)
    pipeline.hget(keyspace.job_key(job_id), "status")
    place, status = pipeline.execute()
    return place is None and status == b"queued"


def _serve_timeout_s(options: Options, idle_rtt_ms: float | None) -> int:
    return int(client.deadline_s(options, idle_rtt_ms)) + 60


def unpack_answer(packed: bytes) -> Answer:
    """
    Read a responder's word; what makes no sense is an answer, too: `bad_reply`.

    >>> unpack_answer(b"nonsense").outcome.value
    'bad_reply'
    """
    try:
        raw = rq_jobs.MsgpackSerializer.loads(packed)
        answer = Answer(
            port=exact_count(raw["port"]),
            version=str(raw["version"])[:20],
            outcome=Outcome(raw["outcome"]),
            error=str(raw["error"]),
        )
    except (WireError, KeyError, TypeError, ValueError, AttributeError) as exc:
        error = f"the responder's word makes no sense: {exc}"
        return Answer(outcome=Outcome.BAD_REPLY, error=error)
    if answer.outcome is Outcome.OK and not 1 <= answer.port <= 65535:
        return Answer(outcome=Outcome.BAD_REPLY, error=f"port ({answer.port}) is none")
    return answer
