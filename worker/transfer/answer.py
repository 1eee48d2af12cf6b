"""
What near asks of far for one test, and what far answers.

A `Request` is the arguments of the job `serve`. An `Answer` comes on the list
`ptzmesh:ready:<token>`: a port, or why not; and after a port, why the server itself failed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import cast

import redis

from worker.model.errors import WireError
from worker.model.fields import exact_count
from worker.model.measurement import Outcome
from worker.model.names import RunId
from worker.wire import keyspace, rq_jobs

#: An answer is of no use to anybody after this long.
READY_TTL_S = 60


@dataclass(frozen=True, kw_only=True)
class Request:
    """
    A server for one test of a row.

    Attributes:
        run: Of the row, as are `phase` and `performer`, which is near.
        phase: Index of the plan's probe.
        performer: Near's index in the plan.
        token: That of near's lease, '.', and the test's number: each answer has its own list.
        number: Which of the tests of near with far it is, in the order of `Encounter.tests`.
        family: 4 or 6: the version of IP by which near connects.
        idle_rtt_ms: Round-trip time between the two; None where the run has not measured it.
    """

    run: RunId
    phase: int
    performer: int
    token: str
    number: int
    family: int
    idle_rtt_ms: float | None

    @property
    def lease_token(self) -> str:
        """The token by which near holds both ends."""
        return self.token.partition(".")[0]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A port of far and its iperf3's version; or why there is none, or why its server failed."""

    port: int = 0
    version: str = ""
    outcome: Outcome = Outcome.OK
    error: str = ""

    def packed(self) -> bytes:
        """Return what `unpack_answer` reads."""
        return rq_jobs.MsgpackSerializer.dumps(asdict(self) | {"outcome": self.outcome.value})


def unpack_answer(packed: bytes) -> Answer:
    """
    Read far's answer; one that makes no sense is a `bad_reply`.

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
        return Answer(outcome=Outcome.BAD_REPLY, error=f"port ({answer.port}) is invalid")
    return answer


def send_answer(connection: redis.Redis, token: str, answer: Answer) -> None:
    """Leave an answer for the asker with this token."""
    key, pipeline = keyspace.ready_key(token), connection.pipeline()
    pipeline.rpush(key, answer.packed())
    pipeline.expire(key, READY_TTL_S)
    pipeline.execute()


def next_answer(connection: redis.Redis, token: str, timeout_s: float) -> Answer | None:
    """Wait for the next answer to this token; None when there is none within `timeout_s`."""
    popped = connection.blpop([keyspace.ready_key(token)], timeout=timeout_s)
    return None if popped is None else unpack_answer(cast(bytes, popped[1]))
