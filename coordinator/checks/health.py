"""
Whether one node is alive, for a container's health check: three short questions to Redis.

Imports little, as it runs every half minute on small machines.
"""

from __future__ import annotations

import math

import redis

from coordinator.checks.check import REACHABLE, Area, Check, failed, judged
from worker.model.names import NodeName
from worker.model.text import in_time
from worker.wire import keyspace, liveness, node_record
from worker.wire.connection import server

#: A check that has not ended is not healthy either: all of it takes less than 2 s.
TIMEOUT_S = 0.5


def own_health(redis_url: str, name: NodeName) -> Check:
    """
    Look whether a node has a recent heartbeat and both its workers; a failure names what lacks.

    Raises:
        ConfigError: The Redis URL is invalid.
    """
    connection = server.connect(
        redis_url, socket_timeout_s=TIMEOUT_S, connect_timeout_s=TIMEOUT_S, retries=0
    )
    with connection:
        try:
            silent_s = liveness.silent_s(connection, name)
            stopped = node_record.has_stopped(connection, name)
            missing = missing_workers(connection, [name]).get(name, [])
        except redis.RedisError as exc:
            return unreachable(exc, redis_url)
    never = silent_s == math.inf
    heard = "was never heard" if never else f"heard {in_time(silent_s)} ago"
    parts, start = [f"{name} {heard}"], f"ptzmesh worker --name {name}"
    parts += ["stopped"] if stopped else []
    parts += [f"{' and '.join(missing)} not registered"] if missing and not never else []
    return judged(
        Area.MESH,
        "own heartbeat",
        ", ".join(parts),
        {"node": name, "seen_s": None if never else silent_s, "missing": missing},
        fail=silent_s > liveness.ALIVE_S or stopped or bool(missing),
        fix=start if never or stopped else f"see its log; if it does not run: {start}",
    )


def unreachable(exc: redis.RedisError, url: str) -> Check:
    """Return the check that says why Redis cannot be used."""
    return failed(Area.REDIS, REACHABLE, str(server.unavailable(exc, url)))


def missing_workers(connection: redis.Redis, names: list[NodeName]) -> dict[NodeName, list[str]]:
    """Return what nodes lack of their two RQ workers; the records of dead ones lapse in minutes."""
    queues = {"prober": keyspace.node_queue, "responder": keyspace.serve_queue}
    pairs = [(name, role) for name in names for role in queues]
    pipeline = connection.pipeline(transaction=False)
    for name, role in pairs:
        pipeline.smembers(keyspace.queue_workers_key(queues[role](name)))
    for members in pipeline.execute():
        pipeline.exists(*(members or ["-"]))
    missing: dict[NodeName, list[str]] = {}
    for (name, role), count in zip(pairs, pipeline.execute(), strict=True):
        if not count:
            missing.setdefault(name, []).append(role)
    return missing
