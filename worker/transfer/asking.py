"""Ask far's responder for a server, and hear what becomes of it."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import redis

from worker.model.measurement import Outcome
from worker.model.names import NodeName
from worker.transfer.answer import Answer, Request, next_answer
from worker.transfer.keeper import Keeper
from worker.wire import keyspace, liveness, node_record, rq_jobs
from worker.wire.connection.away import AWAY
from worker.wire.rows import not_heard

logger = logging.getLogger(__name__)

#: A responder that is idle answers within 50 ms; one that carries a run on may take longer.
READY_S = 8.0
#: A responder that takes a request reports it to RQ at once.
ASTRAY_S = 2.5
LEASE_LOST = "the lease was lost in the middle of the test: Redis was away for too long"
#: A server that failed has ended before its client knows; then its responder says why.
LAST_WORD_S = 2.0
#: How long one look for far's answer lasts, so that the lease is renewed in between.
LOOK_S = 1


@dataclass(frozen=True)
class Gone:
    """Far does not answer, as it is no longer there: why."""

    why: str


def ask(
    connection: redis.Redis,
    far: NodeName,
    request: Request,
    *,
    timeout_s: int,
    keeper: Keeper,
    should_stop: Callable[[], bool],
) -> Answer | Gone | None:
    """Ask far's responder for a server, with RQ's time-out of the job; None when stopped."""
    if gone := no_longer_heard(connection, far):
        return gone
    job_id = _enqueue(connection, far, request, timeout_s)
    asked_at = time.monotonic()
    until = asked_at + READY_S
    while time.monotonic() < until and not keeper.lost():
        answer = next_answer(connection, request.token, LOOK_S)
        if answer is not None:
            return answer
        if should_stop():
            return None
        if time.monotonic() - asked_at > ASTRAY_S and _is_astray(connection, far, job_id):
            logger.warning("a test's request to %s went astray, and is sent again", far)
            job_id = _enqueue(connection, far, request, timeout_s)
            asked_at = time.monotonic()
    if keeper.lost():
        return Answer(outcome=Outcome.TARGET_BUSY, error=LEASE_LOST)
    if node_record.has_stopped(connection, far):
        return Gone("was stopped")
    error = f"the responder of {far} did not answer within {READY_S:.0f} s"
    return no_longer_heard(connection, far) or Answer(outcome=Outcome.TIMEOUT, error=error)


def no_longer_heard(connection: redis.Redis, far: NodeName) -> Gone | None:
    """Return for how long far was not heard, where it counts as lost."""
    silent_s = liveness.missing_s(connection, [far])[far]
    return Gone(not_heard(silent_s)) if silent_s > liveness.ALIVE_S else None


def last_word(connection: redis.Redis, far: NodeName, request: Request) -> str:
    """Return why far's server failed, as its responder says after the test; else nothing."""
    until = time.monotonic() + LAST_WORD_S
    try:
        while (left_s := until - time.monotonic()) > 0:
            answer = next_answer(connection, request.token, max(0.01, left_s))
            if answer is None:
                return ""
            if answer.outcome is not Outcome.OK:  # the port of a request that was sent again
                return answer.error
    except AWAY as exc:
        logger.debug("no last word of %s: %s", far, exc)
    return ""


def _enqueue(connection: redis.Redis, far: NodeName, request: Request, timeout_s: int) -> str:
    job_id = f"serve-{request.run}-{secrets.token_hex(6)}"
    pipeline = connection.pipeline()
    rq_jobs.enqueue(
        connection,
        pipeline,
        keyspace.serve_queue(far),
        keyspace.SERVE,
        asdict(request),
        job_id=job_id,
        timeout_s=timeout_s,
        at_front=True,
    )
    pipeline.execute()
    return job_id


def _is_astray(connection: redis.Redis, far: NodeName, job_id: str) -> bool:
    """
    Whether a job was taken from its queue by nobody who lives.

    Of a node that was cut off in silence Redis keeps the blocked connection for most of a minute,
    and gives it the first job that comes when the node has long been back on another.
    """
    pipeline = connection.pipeline(transaction=False)
    pipeline.lpos(keyspace.queue_key(keyspace.serve_queue(far)), job_id)
    pipeline.hget(keyspace.job_key(job_id), "status")
    index, status = pipeline.execute()
    return index is None and status == b"queued"
