"""
The `redis` probe: a node's way to the mesh's own Redis, by PING and by what a locker does there.

A row of it has one measurement, whose target is `redis`. It uses a connection of its own that
repeats nothing, and a key of its own that lapses by itself.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from statistics import median
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.model.detail import RedisStatistics
from worker.model.measurement import Measurement, Outcome, made
from worker.model.names import REDIS_TARGET, NodeName, RunId
from worker.model.options import RedisOptions
from worker.model.rtt import packet_loss_pct, rtt_statistics
from worker.wire import keyspace
from worker.wire.connection import command_count, redis_url
from worker.wire.connection.way import way_s

PROBE = "redis"
#: Time to live of the key, beyond what its operations may be waited for.
KEY_TTL_S = 10
#: An operation is waited for at least so many times as long as the way to Redis takes; only what
#: was asked before the probe tells how long that is.
WAYS = 3


def measure(
    run: RunId,
    source: NodeName,
    url: str,
    options: RedisOptions,
    should_stop: Callable[[], bool],
) -> Iterator[Measurement]:
    """Yield the one measurement, or nothing when stopped early."""
    started_at, begun = datetime.now(timezone.utc), time.monotonic()
    wait_s = waited_s(options)
    connection = command_count.counted(
        redis_url.plain(url),
        socket_timeout=wait_s,
        socket_connect_timeout=wait_s,
        retry=Retry(NoBackoff(), 0),
    )
    with suppress(redis.RedisError):
        connection.ping()  # opens the connection, whose handshake is not what is measured
    pings: list[float | None] = []
    cycles_ms: list[float] = []
    error = ""
    for number in range(options.count):
        if should_stop():
            return
        time.sleep(max(0.0, begun + number * options.interval_s - time.monotonic()))
        ping_ms, failed = _time(connection.ping)
        cycle_ms, failed_too = _time(lambda: _locker_cycle(connection, source, wait_s))
        pings.append(ping_ms)
        cycles_ms += [] if cycle_ms is None else [cycle_ms]
        error = failed or failed_too or error
    connection.close()
    where = connection.connection_pool.connection_kwargs
    statistics, received = rtt_statistics(pings), options.count - pings.count(None)
    yield made(
        Measurement(
            run=run,
            probe=PROBE,
            source=source,
            target=REDIS_TARGET,
            address=str(where.get("host") or where.get("path") or ""),
            started_at=started_at,
            outcome=Outcome.OK if received else Outcome.NO_REPLY,
            error="" if received else error or "Redis did not answer",
            latency_ms=statistics.rtt_mean_ms,
            packet_loss_pct=packet_loss_pct(options.count, received),
            detail=RedisStatistics(
                **vars(statistics),
                sent=options.count,
                received=received,
                wait_s=wait_s,
                interval_s=options.interval_s,
                locker_cycle_median_ms=median(cycles_ms) if cycles_ms else None,
                locker_cycle_max_ms=max(cycles_ms, default=None),
                locker_cycles=len(cycles_ms),
                last_error=error,
                elapsed_s=time.monotonic() - begun,
                rtts_ms=tuple(pings),
            ),
        )
    )


def waited_s(options: RedisOptions) -> float:
    """
    Return after how many seconds an operation counts as lost.

    What was asked for; longer where the way takes so long that it would make answers into losses.
    """
    return max(options.wait_s, round(WAYS * way_s(), 3))


def _time(call: Callable[[], Any]) -> tuple[float | None, str]:
    begun = time.monotonic()
    try:
        call()
    except redis.RedisError as exc:
        return None, str(exc).partition("\n")[0] or type(exc).__name__
    return (time.monotonic() - begun) * 1000, ""


def _locker_cycle(connection: redis.Redis, source: NodeName, wait_s: float) -> None:
    """Take and give up a locker of our own: SET NX EX, then DEL."""
    key, identifier = keyspace.probe_key(source), secrets.token_hex(8)
    connection.set(key, identifier, nx=True, ex=KEY_TTL_S + math.ceil(wait_s))
    connection.delete(key)
