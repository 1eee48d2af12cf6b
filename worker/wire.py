"""
Everything that must agree between processes: key names, job names, codec, connection.

No other module spells a key. RQ's own keys keep its default prefix, so that `rq info` works.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any, cast
from urllib.parse import urlsplit

import msgpack
import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from rq import Queue
from rq.job import Job

from worker.errors import ConfigError, RedisUnavailable, WireError

NODES = "ptzmesh:nodes"
RUNS = "ptzmesh:runs"
RUNS_OPEN = "ptzmesh:runs:open"
RESULTS = "ptzmesh:results"
CONTROL_QUEUE = "ptzmesh:control"

SWEEP = "ptzmesh.sweep"
ADVANCE = "ptzmesh.advance"

#: A node counts as alive for this long after its last heartbeat; three are sent in that time.
ALIVE_S = 30
HEARTBEAT_S = 10
#: Runs and their bitmaps are kept for a week.
RUN_TTL_S = 7 * 24 * 3600
NODE_TTL_S = 7 * 24 * 3600
#: The stream pushes back beyond either; 512 MiB is about 1.6 million ping results.
MAX_STREAM_ENTRIES = 1_000_000
MAX_STREAM_BYTES = 512 * 1024 * 1024
#: XTRIM MINID and XAUTOCLAIM came with 6.2.
MIN_REDIS = (6, 2, 0)
#: Largest job payload that is looked at; ours are under 100 bytes.
MAX_PAYLOAD_BYTES = 64 * 1024
#: RQ removes a dead job's record after this long; runs do not depend on it.
JOB_TTL_S = 24 * 3600

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


def node_key(name: str) -> str:
    """Give the key of a node's record."""
    return f"ptzmesh:node:{name}"


def run_key(run: str) -> str:
    """Give the key of a run's hash."""
    return f"ptzmesh:run:{run}"


def done_key(run: str, probe: str) -> str:
    """Give the key of the bitmap of pairs that are in the stream."""
    return f"ptzmesh:run:{run}:done:{probe}"


def same_plan_key(digest: str) -> str:
    """Give the key that names the open run of a plan."""
    return f"ptzmesh:plan:{digest}"


def node_queue(name: str) -> str:
    """Give the name of a node's own queue, which its prober serves."""
    return f"ptzmesh:node:{name}"


def serve_queue(name: str) -> str:
    """Give the name of the queue that a node's responder serves."""
    return f"ptzmesh:serve:{name}"


def valid_name(name: str) -> str:
    """
    Pass a node name through, or refuse it.

    Raises:
        ConfigError: Not 1 to 64 letters, digits, dots, dashes or underscores, ending in
            a letter or digit at both sides.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"node name ({name[:80]!r}) must be 1 to 64 letters, digits, '.', '-' or '_', "
            "beginning and ending with a letter or digit"
        )
    return name


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


def queue(connection: redis.Redis, name: str) -> Queue:
    """Open an RQ queue that speaks our codec."""
    return Queue(name, connection=connection, serializer=MsgpackSerializer)


def enqueue(
    connection: redis.Redis,
    queue_name: str,
    job_name: str,
    arguments: Mapping[str, Any],
    *,
    job_id: str | None = None,
    timeout_s: int = 60,
    pipeline: Any = None,
    at_front: bool = False,
) -> Job:
    """Enqueue a job by its name on the allow-list; the enqueuer needs no import of it."""
    return queue(connection, queue_name).enqueue_call(
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


def connect(url: str, *, socket_timeout_s: float = 15.0) -> redis.Redis:
    """
    Open a lazy connection whose connect, read and keepalive time-outs notice a silent cut in 30 s.

    Raises:
        ConfigError: The URL is not a Redis URL.
    """
    options: dict[str, Any] = {
        "socket_timeout": socket_timeout_s,
        "retry": Retry(ExponentialBackoff(cap=1.0, base=0.1), 2),
    }
    try:
        if urlsplit(url).scheme != "unix":
            options |= _tcp_options()
        return cast(redis.Redis, redis.Redis.from_url(url, **options))
    except ValueError as exc:
        raise ConfigError(
            "the Redis URL must look like redis://[:password@]host:port/0, rediss://… or unix://…"
        ) from exc


def _tcp_options() -> dict[str, Any]:
    keepalive = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}
    return {
        "socket_connect_timeout": 5.0,
        "socket_keepalive": True,
        "socket_keepalive_options": {
            getattr(socket, name): value for name, value in keepalive.items() if hasattr(socket, name)
        },
    }


def safe_url(url: str) -> str:
    """
    Give the URL without its secrets, for messages.

    >>> safe_url('redis://:hunter2@10.0.0.1:6379/0')
    'redis://10.0.0.1:6379/0'
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def check_server(connection: redis.Redis, url: str) -> None:
    """
    Ask the server whether the mesh can live on it.

    Raises:
        RedisUnavailable: No answer, wrong password, older than 6.2, or an allkeys-* policy,
            which may evict results, queues and the lockers.
    """
    where = safe_url(url)
    try:
        info = cast(dict[str, Any], connection.info())
    except redis.RedisError as exc:
        raise unavailable(exc, where) from exc
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < MIN_REDIS:
        raise RedisUnavailable(f"Redis at {where} is version {version}; ptzmesh needs 6.2 or newer")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy.startswith("allkeys-"):
        raise RedisUnavailable(
            f"Redis at {where} has maxmemory-policy {policy}, which may evict results and lockers; "
            "set it to noeviction"
        )


def unavailable(exc: redis.RedisError, where: str) -> RedisUnavailable:
    """Turn redis-py's error into one line that says what to do."""
    text = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
    if isinstance(exc, redis.exceptions.OutOfMemoryError) or "OOM" in text:
        return RedisUnavailable(f"Redis at {where} is full: {text}; free memory or raise maxmemory")
    if isinstance(exc, (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)) or (
        "NOAUTH" in text or "WRONGPASS" in text
    ):
        return RedisUnavailable(
            f"Redis at {where} refused us: {text}; check the password in PTZMESH_REDIS_URL"
        )
    return RedisUnavailable(
        f"Redis at {where} does not answer: {text}; check that it runs and --redis names it"
    )


@lru_cache(maxsize=None)
def _script_text(name: str) -> str:
    return resources.files("worker").joinpath("lua", f"{name}.lua").read_text()


def script(connection: redis.Redis, name: str) -> Callable[[Sequence[str], Sequence[Any]], Any]:
    """Give a callable (keys, arguments) for one of our Lua files."""
    return cast(
        "Callable[[Sequence[str], Sequence[Any]], Any]", connection.register_script(_script_text(name))
    )


def redis_seconds(connection: redis.Redis) -> float:
    """Give the server's time as epoch seconds: the one clock that deadlines are on."""
    seconds, micros = cast(tuple[int, int], connection.time())
    return seconds + micros / 1e6
