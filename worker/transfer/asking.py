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
from worker.wire.connection.way import allowing, way_s
from worker.wire.rows import not_heard

logger = logging.getLogger(__name__)

#: A responder that is idle answers within 50 ms; one that carries a run on may take longer; and
#: so many round trips between it and Redis, those of older versions among them.
READY_S, READY_TRIPS = 8.0, 48
#: A responder that takes a request reports it to RQ at once: in so many round trips.
ASTRAY_S, ASTRAY_TRIPS = 2.5, 12
LEASE_LOST = "the lease was lost in the middle of the test: Redis was away for too long"
#: A server that failed has ended before its client knows; then its responder says why.
LAST_WORD_S, LAST_WORD_TRIPS = 2.0, 4
#: How long one look for far's answer lasts, so that the lease is renewed in between. An answer that
#: comes between two looks waits for a round trip, so where these take long, looks are longer.
LOOK_S, LOOK_TRIPS = 1.0, 2


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
    missing_s: float | None = None,
    far_way_s: float = 0.0,
) -> Answer | Gone | None:
    """
    Ask far's responder for a server, with RQ's time-out of the job; None when stopped.

    Args:
        keeper: Of the lease of both.
        should_stop: Asked between two looks for the answer.
        missing_s: For how long far was not heard (`liveness`), where that is known already.
        far_way_s: How long its way to Redis and back takes, if that is known.
    """
    gone = no_longer_heard(connection, far) if missing_s is None else _gone(missing_s)
    if gone:
        return gone
    job_id = _enqueue(connection, far, request, timeout_s)
    asked_at = time.monotonic()
    trip_s = max(far_way_s, way_s())  # an older far says nothing of its own
    ready_s, reports_s = READY_S + READY_TRIPS * trip_s, ASTRAY_TRIPS * trip_s
    until, look_for_it_at = asked_at + ready_s, asked_at + ASTRAY_S + reports_s
    is_taken = False
    while time.monotonic() < until and not keeper.lost():
        look_s = max(LOOK_S, min(LOOK_TRIPS * way_s(), keeper.idle_s))
        answer = next_answer(connection, request.token, look_s)
        if answer is not None:
            return answer
        if should_stop():
            return None
        if time.monotonic() <= look_for_it_at or not _is_astray(connection, far, job_id):
            continue
        if not is_taken and reports_s > LOOK_S:
            # Whoever has taken it may be about to report it.
            is_taken, look_for_it_at = True, time.monotonic() + reports_s
            continue
        logger.warning("a test's request to %s went astray, and is sent again", far)
        job_id = _enqueue(connection, far, request, timeout_s)
        is_taken, look_for_it_at = False, time.monotonic() + ASTRAY_S + reports_s
    if keeper.lost():
        return Answer(outcome=Outcome.TARGET_BUSY, error=LEASE_LOST)
    if node_record.has_stopped(connection, far):
        return Gone("was stopped")
    error = f"the responder of {far} did not answer within {ready_s:.0f} s"
    return no_longer_heard(connection, far) or Answer(outcome=Outcome.TIMEOUT, error=error)


def no_longer_heard(connection: redis.Redis, far: NodeName) -> Gone | None:
    """Return for how long far was not heard, where it counts as lost."""
    return _gone(liveness.missing_s(connection, [far])[far])


def _gone(silent_s: float) -> Gone | None:
    return Gone(not_heard(silent_s)) if silent_s > liveness.ALIVE_S else None


def last_word(connection: redis.Redis, far: NodeName, request: Request, far_way_s: float) -> str:
    """Return why far's server failed, as its responder says after the test; else nothing."""
    until = time.monotonic() + allowing(LAST_WORD_S, 1) + LAST_WORD_TRIPS * far_way_s
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
    job = rq_jobs.enqueuing(
        keyspace.serve_queue(far),
        keyspace.SERVE,
        asdict(request),
        job_id=job_id,
        timeout_s=timeout_s,
        at_front=True,
    )
    rq_jobs.carry_out(connection, job)
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
