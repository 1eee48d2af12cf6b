"""
Everything else that must agree between processes: codec, connection, times to live, what passes.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, unquote_plus, urlsplit

import msgpack
import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from rq import Queue
from rq.job import Job

from worker import keyspace, redis_url, usage
from worker.away import AWAY
from worker.errors import ConfigError, RedisUnavailable, WireError
from worker.fields import number_or_none
from worker.redis_trouble import passes, sentence

#: A node counts as alive for this long after its last heartbeat; three are sent in that time.
ALIVE_S = 30
#: When no node was heard for this long, it was Redis that was away; lua/heartbeat.lua halves alike.
REDIS_AWAY_S = ALIVE_S / 2
HEARTBEAT_S = 10
#: Runs and their bitmaps are kept for a week, and no more than the newest of them.
RUN_TTL_S = 7 * 24 * 3600
MAX_RUNS = 1000
NODE_TTL_S = 7 * 24 * 3600
#: XTRIM MINID and XAUTOCLAIM came with 6.2.
MIN_REDIS = (6, 2, 0)
#: Largest job payload that is looked at; ours are under 100 bytes.
MAX_PAYLOAD_BYTES = 64 * 1024
#: RQ removes a failed job's record after this long; runs do not depend on it.
JOB_TTL_S = 24 * 3600
#: An advance may have to publish a row for each pair of a large mesh, at the mesh's pace.
ADVANCE_TIMEOUT_S = 1800
#: Jobs enqueued in one transaction: about 10 commands each, well within a millisecond together.
JOBS_AT_A_TIME = 8
#: Longest job that a worker accepts.
MAX_JOB_S = 24 * 3600
#: All that a job's record has: what whoever enqueues it writes, and what its worker adds. A worker
#: refuses a record with anything else in it.
JOB_FIELDS = frozenset({
    "created_at", "data", "description", "ended_at", "enqueued_at", "failure_ttl",
    "last_heartbeat", "origin", "result_ttl", "started_at", "status", "timeout", "worker_name",
})  # fmt: skip


def bit_is_set(bitmap: bytes, bit: int) -> bool:
    """
    Read one bit as Redis numbers them: the first bit is the highest of the first byte.

    >>> bit_is_set(b'\\x40', 1), bit_is_set(b'\\x40', 2), bit_is_set(b'', 9)
    (True, False, False)
    """
    return bit // 8 < len(bitmap) and bool(bitmap[bit // 8] >> (7 - bit % 8) & 1)


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


class PlainJob(Job):
    """A job whose record has no field but ours, whatever this version of RQ knows."""

    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:
        """Give the record."""
        whole = super().to_dict(include_meta=False, include_result=False)
        return {name: value for name, value in whole.items() if name in JOB_FIELDS}


def queue(connection: redis.Redis, name: str) -> Queue:
    """Open an RQ queue that speaks our codec."""
    return Queue(name, connection=connection, serializer=MsgpackSerializer, job_class=PlainJob)


def enqueue(
    connection: redis.Redis,
    pipeline: redis.client.Pipeline,
    queue_name: str,
    job_name: str,
    arguments: Mapping[str, Any],
    *,
    job_id: str | None = None,
    timeout_s: int = 60,
    at_front: bool = False,
) -> None:
    """Enqueue a job by its name on the allow-list; the enqueuer needs no import of it."""
    queue(connection, queue_name).enqueue_call(
        job_name,
        kwargs=dict(arguments),
        job_id=job_id,
        timeout=timeout_s,
        result_ttl=0,
        failure_ttl=JOB_TTL_S,
        description=job_name,
        pipeline=pipeline,
        at_front=at_front,
    )


def enqueue_advance(connection: redis.Redis, run: str) -> None:
    """Ask any node to carry the run on."""
    pipeline = connection.pipeline()
    enqueue(
        connection,
        pipeline,
        keyspace.CONTROL_QUEUE,
        keyspace.ADVANCE,
        {"run": run},
        timeout_s=ADVANCE_TIMEOUT_S,
    )
    pipeline.execute()


def connect(
    url: str,
    *,
    socket_timeout_s: float = 8.0,
    connect_timeout_s: float = 4.0,
    retries: int = 1,
) -> redis.Redis:
    """
    Open a lazy connection whose connect, read and keepalive time-outs notice a silent cut in 20 s.

    A command is tried once more, which may take a second connect.

    Raises:
        ConfigError: The URL is not a Redis URL.
    """
    options: dict[str, Any] = {
        "socket_timeout": socket_timeout_s,
        "retry": Retry(ExponentialBackoff(cap=1.0, base=0.1), retries),
    }
    url = redis_url.plain(url)
    if redis_url.split(url).scheme != "unix":
        options |= _tcp_options(connect_timeout_s)
    try:
        return usage.count_on(redis.Redis.from_url(url, **options))
    except ValueError:
        raise ConfigError(redis_url.FORM) from None


def _tcp_options(connect_timeout_s: float) -> dict[str, Any]:
    keepalive = {
        "TCP_KEEPIDLE": 10,
        "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 20_000,
    }
    return {
        "socket_connect_timeout": connect_timeout_s,
        "socket_keepalive": True,
        "socket_keepalive_options": {
            getattr(socket, name): value
            for name, value in keepalive.items()
            if hasattr(socket, name)
        },
    }


def safe_url(url: str) -> str:
    """
    Give the URL without user, password and query, for messages.

    >>> safe_url('rediss://worker:hunter2@10.0.0.1:6379/0?ssl_password=x')
    'rediss://10.0.0.1:6379/0'
    """
    try:
        parts = redis_url.split(url)
    except ConfigError:
        return "its URL"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def without_secrets(text: str, url: str) -> str:
    """
    Blot the URL's secrets out of a text, such as another library's error.

    >>> without_secrets('cannot reach redis://:hunter2@h', 'redis://:hunter2@h')
    'cannot reach redis://:***@h'
    """
    try:
        secrets = redis_url.secrets_of(urlsplit(url))
    except ValueError:
        secrets = (url,)
    for secret in secrets:
        for spelling in (secret, unquote(secret), unquote_plus(secret)):
            text = text.replace(spelling, "***")
    return text


def check_server(connection: redis.Redis, url: str, *, scripts: bool = False) -> None:
    """
    Ask the server whether the mesh can live on it.

    Args:
        connection: To it.
        url: Its URL, for messages.
        scripts: Try a script, too: who publishes needs them.

    Raises:
        RedisUnavailable: No answer, wrong password, older than 6.2, a cluster, without scripts, or
            with a policy that may evict results, queues and the lockers.
    """
    where = safe_url(url)
    try:
        info = connection.info()
        if scripts:
            try_script(connection)
    except redis.RedisError as exc:
        raise unavailable(exc, where) from exc
    reason = objection(info)
    if reason is not None:
        raise RedisUnavailable(f"Redis at {where} {reason}")


def try_script(connection: redis.Redis) -> None:
    """Run a script that does nothing; what Redis raises passes through."""
    connection.register_script("return 1")()


def objection(info: Mapping[str, Any]) -> str | None:
    """
    Say why a mesh cannot live on a server of which this is the INFO; None when it can.

    >>> objection({"redis_version": "6.0.16"})
    'is version 6.0.16; ptzmesh needs 6.2 or newer'
    >>> objection({"redis_version": "6.2.0", "maxmemory_policy": "noeviction"})
    """
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < MIN_REDIS:
        return f"is version {version}; ptzmesh needs 6.2 or newer"
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        return (
            f"has maxmemory-policy {policy}, which may evict lockers that are held, nodes, runs or "
            "results; set it to noeviction"
        )
    if int(info.get("cluster_enabled", 0)):
        return (
            "is a cluster, over which the mesh cannot spread its keys; name one without cluster "
            "mode"
        )
    return None


def unavailable(exc: redis.RedisError, where: str) -> RedisUnavailable:
    """Turn redis-py's error into one line that says what to do."""
    text = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
    said = f"Redis at {where} {sentence(text, where)}"
    is_of_connection = isinstance(exc, (redis.ConnectionError, redis.TimeoutError))
    return RedisUnavailable(said, passes=passes(text, where, is_of_connection=is_of_connection))


@cache
def _script_text(name: str) -> str:
    # Not by the package's name: a folder `worker` where the program runs would be taken for it.
    return (Path(__file__).with_name("lua") / f"{name}.lua").read_text(encoding="utf-8")


def script(connection: redis.Redis, *names: str) -> Callable[[Sequence[str], Sequence[Any]], Any]:
    """Give a callable (keys, arguments) for our Lua files of these names, one after another."""
    registered = connection.register_script("".join(map(_script_text, names)))
    return cast("Callable[[Sequence[str], Sequence[Any]], Any]", registered)


def severity(exc: Exception) -> int:
    """
    Give the level at which a failure at Redis is logged: what passes by itself is no warning.

    That Redis is away is said once, by the supervisor (`worker.outage`).
    """
    return logging.DEBUG if isinstance(exc, AWAY) else logging.WARNING


def redis_seconds(connection: redis.Redis) -> float:
    """Give the server's time as epoch seconds: the one clock that deadlines are on."""
    seconds, micros = connection.time()
    return seconds + micros / 1e6


def run_is_wanted(connection: redis.Redis, run: str) -> bool:
    """Tell whether a run is open and nobody has cancelled it."""
    status, cancelled = connection.hmget(keyspace.run_key(run), ["status", "cancel"])
    return status == b"running" and cancelled is None


def note_in_run(connection: redis.Redis, run: str, field: str, value: str | bytes) -> None:
    """Note something of a row in its run; of a run that Redis has just lost, not for ever."""
    pipeline = connection.pipeline(transaction=False)
    pipeline.hset(keyspace.run_key(run), field, value)
    pipeline.expire(keyspace.run_key(run), RUN_TTL_S)
    pipeline.execute()


def silent_s(connection: redis.Redis, node: str) -> float:
    """Give the seconds since a node's last heartbeat; infinite when there was none."""
    seen = connection.zscore(keyspace.NODES, node)
    return float("inf") if seen is None else redis_seconds(connection) - seen


def missing_s(connection: redis.Redis, nodes: Sequence[str]) -> dict[str, float]:
    """
    Give for how long each node could have been heard and was not; infinite when it never was.

    That is since its last heartbeat, or since Redis was back from being away. Where no node at all
    was heard for long, Redis is back just now, and nobody is missing yet.
    """
    pipeline = connection.pipeline(transaction=False)
    for name in nodes:
        pipeline.zscore(keyspace.NODES, name)
    pipeline.zrange(keyspace.NODES, 0, 0, desc=True, withscores=True)
    pipeline.get(keyspace.BACK)
    pipeline.time()
    *seen, newest, back, (seconds, micros) = pipeline.execute()
    now, back_at = seconds + micros / 1e6, number_or_none(back) or 0.0
    is_back_just_now = bool(newest) and now - newest[0][1] > REDIS_AWAY_S

    def missing(at: float | None) -> float:
        if at is None:
            return float("inf")
        return 0.0 if is_back_just_now else now - max(at, back_at)

    return {name: missing(at) for name, at in zip(nodes, seen, strict=True)}
