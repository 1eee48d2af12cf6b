"""
Everything else that must agree between processes: codec, connection, times to live, what passes.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import msgpack
import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from rq import Queue

from worker import keyspace
from worker.errors import ConfigError, RedisUnavailable, WireError

#: A node counts as alive for this long after its last heartbeat; three are sent in that time.
ALIVE_S = 30
HEARTBEAT_S = 10
#: Runs and their bitmaps are kept for a week, and no more than the newest of them.
RUN_TTL_S = 7 * 24 * 3600
MAX_RUNS = 1000
NODE_TTL_S = 7 * 24 * 3600
#: The stream pushes back beyond either (`LIMITS` may say otherwise for the whole mesh);
#: 256 MiB hold some 450,000 ping results.
MAX_STREAM_ENTRIES = 1_000_000
MAX_STREAM_BYTES = 256 * 1024 * 1024
#: XTRIM MINID and XAUTOCLAIM came with 6.2.
MIN_REDIS = (6, 2, 0)
#: Largest job payload that is looked at; ours are under 100 bytes.
MAX_PAYLOAD_BYTES = 64 * 1024
#: RQ removes a failed job's record after this long; runs do not depend on it.
JOB_TTL_S = 24 * 3600
#: Longest job that a worker accepts.
MAX_JOB_S = 24 * 3600

HOSTNAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


def bit_is_set(bitmap: bytes, bit: int) -> bool:
    """
    Read one bit as Redis numbers them: the first bit is the highest of the first byte.

    >>> bit_is_set(b'\\x40', 1), bit_is_set(b'\\x40', 2), bit_is_set(b'', 9)
    (True, False, False)
    """
    return bit // 8 < len(bitmap) and bool(bitmap[bit // 8] >> (7 - bit % 8) & 1)


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


def valid_address(address: str) -> str:
    """
    Pass an IPv4 or IPv6 address or a host name through, or refuse it.

    Raises:
        ConfigError: Neither of these, such as one with a leading dash, or no address of one
            machine (multicast, broadcast, unspecified).

    >>> valid_address("edge-7"), valid_address("10.0.0.1"), valid_address("fe80::1%eth0")
    ('edge-7', '10.0.0.1', 'fe80::1%eth0')
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        # A last label of digits only would make 10.0.0.256 a name (RFC 1123 section 2.1).
        last = address.rstrip(".").rpartition(".")[2]
        if len(address) <= 253 and HOSTNAME.fullmatch(address) and not last.isdigit():
            return address
        raise ConfigError(
            f"address ({address[:80]!r}) must be an IPv4 or IPv6 address or a host name"
        ) from None
    if ip.is_multicast or ip.is_unspecified or str(ip) == "255.255.255.255":
        raise ConfigError(f"address ({address}) is not the address of one machine")
    return address


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
    enqueue(connection, pipeline, keyspace.CONTROL_QUEUE, keyspace.ADVANCE, {"run": run})
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

    redis-py retries the connect within each retry of the command: one retry is up to four connects.

    Raises:
        ConfigError: The URL is not a Redis URL.
    """
    options: dict[str, Any] = {
        "socket_timeout": socket_timeout_s,
        "retry": Retry(ExponentialBackoff(cap=1.0, base=0.1), retries),
    }
    try:
        if urlsplit(url).scheme != "unix":
            options |= _tcp_options(connect_timeout_s)
        return redis.Redis.from_url(url, **options)
    except ValueError as exc:
        raise ConfigError(
            "the Redis URL must look like redis://[:password@]host:port/0, rediss://… or unix://…"
        ) from exc


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
    Give the URL without its secrets, for messages.

    >>> safe_url('redis://:hunter2@10.0.0.1:6379/0')
    'redis://10.0.0.1:6379/0'
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def without_secrets(text: str, url: str) -> str:
    """
    Blot the URL's password out of a text, such as another library's error.

    >>> without_secrets('cannot reach redis://:hunter2@h', 'redis://:hunter2@h')
    'cannot reach redis://:***@h'
    """
    secret = urlsplit(url).password
    return text.replace(unquote(secret), "***").replace(secret, "***") if secret else text


def check_server(connection: redis.Redis, url: str) -> None:
    """
    Ask the server whether the mesh can live on it.

    Raises:
        RedisUnavailable: No answer, wrong password, older than 6.2, or an allkeys-* policy,
            which may evict results, queues and the lockers.
    """
    where = safe_url(url)
    try:
        info = connection.info()
    except redis.RedisError as exc:
        raise unavailable(exc, where) from exc
    reason = objection(info)
    if reason is not None:
        raise RedisUnavailable(f"Redis at {where} {reason}")


def objection(info: Mapping[str, Any]) -> str | None:
    """
    Say why a mesh cannot live on a server of which this is the INFO; None when it can.

    >>> objection({"redis_version": "6.0.16"})
    'is version 6.0.16; ptzmesh needs 6.2 or newer'
    >>> objection({"redis_version": "6.2.0", "maxmemory_policy": "volatile-lru"})
    """
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < MIN_REDIS:
        return f"is version {version}; ptzmesh needs 6.2 or newer"
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy.startswith("allkeys-"):
        return (
            f"has maxmemory-policy {policy}, which may evict results and lockers; "
            "set it to noeviction"
        )
    return None


def unavailable(exc: redis.RedisError, where: str) -> RedisUnavailable:
    """Turn redis-py's error into one line that says what to do."""
    text = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
    if isinstance(exc, redis.exceptions.OutOfMemoryError) or "OOM" in text:
        return RedisUnavailable(
            f"Redis at {where} is full: it uses its maxmemory; free memory or raise maxmemory"
        )
    refused = (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)
    if isinstance(exc, refused) or "NOAUTH" in text or "WRONGPASS" in text:
        return RedisUnavailable(
            f"Redis at {where} refused us: no password, a wrong one, or a user without the right; "
            "check PTZMESH_REDIS_URL"
        )
    return RedisUnavailable(
        f"Redis at {where} does not answer: {text}; check that it runs and --redis names it"
    )


def read_limits(connection: redis.Redis) -> dict[str, int]:
    """Give the caps of the results stream that hold for this mesh."""
    entries, size = connection.hmget(keyspace.LIMITS, ["stream_entries", "stream_bytes"])
    return {
        "stream_entries": int(entries or MAX_STREAM_ENTRIES),
        "stream_bytes": int(size or MAX_STREAM_BYTES),
    }


def stream_is_full() -> RedisUnavailable:
    """Say that results have no room, and what makes room."""
    return RedisUnavailable(
        "the results stream is full and not collected; run: ptzmesh collect --csv FILE, "
        "or raise its cap: ptzmesh limits --stream-bytes N"
    )


@cache
def _script_text(name: str) -> str:
    return (resources.files("worker") / "lua" / f"{name}.lua").read_text()


def script(connection: redis.Redis, *names: str) -> Callable[[Sequence[str], Sequence[Any]], Any]:
    """Give a callable (keys, arguments) for our Lua files of these names, one after another."""
    registered = connection.register_script("".join(map(_script_text, names)))
    return cast("Callable[[Sequence[str], Sequence[Any]], Any]", registered)


def redis_seconds(connection: redis.Redis) -> float:
    """Give the server's time as epoch seconds: the one clock that deadlines are on."""
    seconds, micros = connection.time()
    return seconds + micros / 1e6


def run_is_wanted(connection: redis.Redis, run: str) -> bool:
    """Tell whether a run is open and nobody has cancelled it."""
    status, cancelled = connection.hmget(keyspace.run_key(run), ["status", "cancel"])
    return status == b"running" and cancelled is None


def silent_s(connection: redis.Redis, node: str) -> float:
    """Give the seconds since a node's last heartbeat; infinite when there was none."""
    seen = connection.zscore(keyspace.NODES, node)
    return float("inf") if seen is None else redis_seconds(connection) - seen
