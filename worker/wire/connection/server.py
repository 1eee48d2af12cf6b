"""Connecting to the Redis of the mesh, and judging whether a mesh can live on it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote, unquote_plus, urlsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from worker.model.errors import ConfigError, RedisUnavailable
from worker.wire.connection import command_count, redis_url, traffic
from worker.wire.connection.away import AWAY
from worker.wire.connection.handshake import Terms
from worker.wire.connection.redis_trouble import IS_CLUSTER, trouble

#: XTRIM MINID and XAUTOCLAIM came with 6.2.
MIN_REDIS = (6, 2, 0)
#: What redis-py puts before an error that Redis answered to one command of several.
_IN_PIPELINE = re.compile(r"\ACommand # \d+ \(.*?\) of pipeline caused error: ", re.DOTALL)
#: Seconds until a connection on which nothing passes is looked after.
KEEPALIVE_S = 10
KEEPALIVE = {
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 20_000,
}


def connect(
    url: str,
    *,
    socket_timeout_s: float = 8.0,
    connect_timeout_s: float = 4.0,
    retries: int = 1,
    judged: bool = False,
    keepalive_s: int = KEEPALIVE_S,
) -> redis.Redis:
    """
    Open a lazy connection whose connect, read and keepalive time-outs notice a silent cut in 20 s.

    A command is tried once more, which may take a second connect, but not the first of a
    connection, whose loss may be a refusal. A server is `judged` with the
    first command, as by `check_server`, and whatever keeps it from answering is RedisUnavailable.
    A `keepalive_s` that is longer saves two packets each time, and a cut is noticed so much later
    while an answer is waited for.

    Raises:
        ConfigError: The URL is not a Redis URL.
    """
    options: dict[str, Any] = {
        "socket_timeout": socket_timeout_s,
        "retry": Retry(ExponentialBackoff(cap=1.0, base=0.1), retries),
    }
    url = redis_url.plain(url)
    if judged:
        options["terms"] = Terms(partial(_check, url), partial(unavailable, url=url))
    if redis_url.split(url).scheme != "unix":
        options |= {
            "socket_connect_timeout": connect_timeout_s,
            "socket_keepalive": True,
            "socket_keepalive_options": {**KEEPALIVE, socket.TCP_KEEPIDLE: keepalive_s},
        }
    try:
        return command_count.counted(url, **options)
    except ValueError:
        raise ConfigError(redis_url.FORM) from None


def look_after(connection: redis.Redis, socket_timeout_s: float) -> None:
    """Have the connections that a pool makes from now on noticed to be cut as soon as others."""
    options: dict[str, Any] = connection.connection_pool.connection_kwargs
    options["socket_timeout"] = socket_timeout_s
    if "socket_keepalive_options" in options:
        options["socket_keepalive_options"] = {**KEEPALIVE, socket.TCP_KEEPIDLE: KEEPALIVE_S}


def hang_up(connection: redis.Redis) -> None:
    """
    End the connections of a pool, in a signal handler: what waits at one finds it closed.

    redis-py has no way to close what is in use without waiting for it, so these are its internals;
    `tests/integration/test_usage.py` holds them.
    """
    pool: Any = connection.connection_pool
    for link in (*pool._in_use_connections, *pool._available_connections):
        if link._sock is not None:
            with contextlib.suppress(OSError):
                link._sock.shutdown(socket.SHUT_RDWR)


def pass_on(connection: redis.Redis) -> list[Any]:
    """
    Take what is open out of a pool, for a process that is forked next: no open one is waited for.

    The parent lets go of it then (`let_go`), and the child has it (`take_over`). As in `hang_up`,
    these are redis-py's internals; `tests/integration/test_pass_on.py` holds them.
    """
    pool: Any = connection.connection_pool
    links = [link for link in pool._available_connections if link._sock is not None][-1:]
    for link in links:
        pool._available_connections.remove(link)
        pool._created_connections -= 1
        traffic.passes_on(link)
    return links


def let_go(links: Sequence[Any]) -> None:
    """Close what a child has by now, without a word to the server."""
    for link in links:
        link._sock.close()
        link._sock = None


def take_over(connection: redis.Redis, links: Sequence[Any], socket_timeout_s: float) -> None:
    """Put what the parent passes on into a pool of this process, which is looked after."""
    pool: Any = connection.connection_pool
    for link in links:
        link.pid = os.getpid()
        link.socket_timeout = socket_timeout_s
        link._sock.settimeout(socket_timeout_s)
        if link._sock.family != socket.AF_UNIX:
            link._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
        link._parser.on_connect(link)
        pool._available_connections.append(link)
        pool._created_connections += 1
        traffic.takes_over(link)


def safe_url(url: str) -> str:
    """
    Return the URL without user, password and query, for messages.

    >>> safe_url('rediss://worker:hunter2@10.0.0.1:6379/0?ssl_password=x')
    'rediss://10.0.0.1:6379/0'
    """
    try:
        parts = redis_url.split(url)
    except ConfigError:
        return "its URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


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


def check_server(connection: redis.Redis, url: str) -> None:
    """
    Ask the server whether a node of the mesh can live on it.

    Raises:
        RedisUnavailable: No answer, wrong password, older than 6.2, a cluster, without scripts, or
            with a policy that may evict results, queues and the lockers.
    """
    try:
        info = connection.info()
        try_script(connection)
    except redis.RedisError as exc:
        raise unavailable(exc, url) from exc
    _check(url, info)


def _check(url: str, info: Mapping[str, Any]) -> None:
    if reason := objection(info):
        raise RedisUnavailable(f"Redis at {safe_url(url)} {reason}")


def try_script(connection: redis.Redis) -> None:
    """Run a script that does nothing; what Redis raises passes through."""
    connection.register_script("return 1")()


def objection(info: Mapping[str, Any]) -> str | None:
    """
    Return why a mesh cannot live on a server of which this is the INFO; None when it can.

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
        return IS_CLUSTER
    return None


def unavailable(exc: redis.RedisError, url: str) -> RedisUnavailable:
    """Turn redis-py's error into one line that says what to do, without the URL's secrets."""
    text = _IN_PIPELINE.sub("", str(exc)).partition("\n")[0] or type(exc).__name__
    cause, passes = trouble(text, url.partition(":")[0])
    if passes is None:
        passes = isinstance(exc, (redis.ConnectionError, redis.TimeoutError))
    line = without_secrets(f"Redis at {safe_url(url)} {cause}", url)
    return RedisUnavailable(line, passes=passes)


def severity(exc: Exception) -> int:
    """
    Return the level at which a failure at Redis is logged: what passes by itself is no warning.

    That Redis is away is logged once, by the supervisor (`worker.node.outage`).
    """
    return logging.DEBUG if isinstance(exc, AWAY) else logging.WARNING
