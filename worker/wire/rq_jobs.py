"""Our RQ jobs: their codec, their record, how they are enqueued."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain
from typing import Any

import msgpack
import redis

from worker.model.errors import WireError
from worker.model.names import RunId
from worker.wire import keyspace, scripts
from worker.wire.connection import server
from worker.wire.round_trip import Ask, Asking, sure, together

#: A command to Redis, by its words.
Word = str | bytes
Command = tuple[Word, ...]

#: Largest job payload that is looked at; ours are under 100 bytes.
MAX_PAYLOAD_BYTES = 64 * 1024
#: RQ removes a failed job's record after this long; runs do not depend on it.
JOB_TTL_S = 24 * 3600
#: An advance may have to publish a row for each pair of a large mesh, at the mesh's pace.
ADVANCE_TIMEOUT_S = 1800
#: Jobs enqueued in one transaction: half a dozen commands each, well within a millisecond together.
JOBS_AT_A_TIME = 8
#: Longest job that a worker accepts.
MAX_JOB_S = 24 * 3600
#: All that a job's record has, as it is enqueued and as its worker adds to it. A worker refuses a
#: record with anything else in it.
JOB_FIELDS = frozenset({
    "created_at", "data", "description", "ended_at", "enqueued_at", "failure_ttl",
    "last_heartbeat", "origin", "result_ttl", "started_at", "status", "timeout", "worker_name",
})  # fmt: skip
#: Jobs that tell RQ themselves that they have begun, with what they ask: see `asking_told`.
TELL_THEMSELVES = frozenset({keyspace.SWEEP, keyspace.SERVE, keyspace.ANSWER})


@dataclass
class InHand:
    """
    The job of this process, a work-horse.

    Attributes:
        connection: The one connection that it and RQ have to Redis; another is a round trip more.
        untold: Queues what RQ is still to be told of its beginning; None once it was.
        trouble: What Redis made of that, where it was an error.
    """

    connection: redis.Redis
    untold: Callable[[redis.client.Pipeline], None] | None = None
    trouble: redis.ResponseError | None = None


#: None in any other process.
in_hand: InHand | None = None


def take_in_hand(connection: redis.Redis) -> None:
    """Note that this process is to run one job, with this connection."""
    global in_hand
    in_hand = InHand(connection)


def connection_of_job(url: str) -> redis.Redis:
    """Return the connection of the job in hand; elsewhere make one."""
    return server.connect(url) if in_hand is None else in_hand.connection


def asking_told() -> Asking[None]:
    """Tell RQ what it is still to be told; whatever Redis says to it, the job goes on."""
    if in_hand is None or in_hand.untold is None:
        return
    answers = yield in_hand.untold
    errors = (answer for answer in answers if isinstance(answer, redis.ResponseError))
    in_hand.untold, in_hand.trouble = None, next(errors, None)


def ask_first(connection: redis.Redis, ask: Ask) -> list[Any]:
    """Ask what a job needs first, and tell RQ in the same round trip; return the answers."""

    def asking() -> Asking[list[Any]]:
        return sure((yield ask))

    answers: list[Any] = together(connection, asking_told(), asking())[1]
    return answers


class MsgpackSerializer:
    """RQ's serializer: plain values only, so that reading a payload runs nothing."""

    @staticmethod
    def dumps(value: Any) -> bytes:
        """Pack a plain value."""
        return bytes(msgpack.packb(value))

    @staticmethod
    def loads(packed: bytes) -> Any:
        """Unpack, refusing what is too long or no msgpack."""
        if len(packed) > MAX_PAYLOAD_BYTES:
            raise WireError(f"payload ({len(packed)} bytes) is over {MAX_PAYLOAD_BYTES}")
        try:
            return msgpack.unpackb(packed)
        except (ValueError, msgpack.UnpackException) as exc:
            raise WireError(f"payload is not msgpack: {exc}") from exc


def enqueuing(
    queue: str,
    name: str,
    arguments: Mapping[str, Any],
    *,
    job_id: str | None = None,
    timeout_s: int = 60,
    at_front: bool = False,
) -> list[Command]:
    """
    Return the commands that enqueue a job by its name on the allow-list.

    They are those of RQ's `Queue.enqueue_call`, without what is empty in a job that has no
    callbacks. To import RQ for them takes a tenth of the time of a program that triggers a run.
    """
    job_id = job_id or secrets.token_hex(16)
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    record: dict[str, Word] = {
        "created_at": now,
        # A function, the object that it is a method of, and its arguments.
        "data": zlib.compress(MsgpackSerializer.dumps([name, None, [], dict(arguments)])),
        "started_at": "",
        "ended_at": "",
        "last_heartbeat": "",
        "worker_name": "",
        "origin": queue,
        "description": name,
        "enqueued_at": now,
        "timeout": str(timeout_s),
        "result_ttl": "0",
        "failure_ttl": str(JOB_TTL_S),
        "status": "queued",
    }
    return [
        ("SADD", keyspace.QUEUES, keyspace.queue_key(queue)),
        ("HSET", keyspace.job_key(job_id), *chain.from_iterable(record.items())),
        ("LPUSH" if at_front else "RPUSH", keyspace.queue_key(queue), job_id),
    ]


def words_of(commands: Sequence[Command]) -> list[bytes]:
    """
    Return commands as `lua/commands.lua` takes them.

    In one argument with each word once: several jobs have most in common, and their ids are long.
    """
    numbers: dict[Word, int] = {}
    numbered = [
        [numbers.setdefault(word, len(numbers) + 1) for word in command] for command in commands
    ]
    return [scripts.packed_for_lua([list(numbers), numbered])] if commands else []


def carry_out(connection: redis.Redis, commands: Iterable[Command]) -> None:
    """Carry out commands in one transaction."""
    pipeline: Any = connection.pipeline()
    for command in commands:
        pipeline.execute_command(*command)
    pipeline.execute()


def enqueue_advance(connection: redis.Redis, run: RunId) -> None:
    """Ask any node to carry the run on."""
    carry_out(
        connection,
        enqueuing(
            keyspace.CONTROL_QUEUE, keyspace.ADVANCE, {"run": run}, timeout_s=ADVANCE_TIMEOUT_S
        ),
    )
