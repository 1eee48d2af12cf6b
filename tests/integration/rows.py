"""A plan of nodes that do not run, and what makes them look as if they did."""

from __future__ import annotations

from typing import Any

import redis

from coordinator.runs.runs import of_run
from worker.model.measurement import Outcome
from worker.model.plan import Plan, PlannedNode
from worker.wire import keyspace, scripts


def plan(size: int = 3, **fields: object) -> Plan:
    nodes = tuple(PlannedNode(name=f"n{i}", address=f"127.0.0.{i + 1}") for i in range(size))
    everyone = tuple(range(size))
    chosen: dict[str, Any] = {"sources": everyone, "targets": everyone, **fields}
    return Plan(nodes=nodes, **chosen)


def beat(connection: redis.Redis, *names: str) -> None:
    """Make nodes look alive, as their heartbeats would."""
    now = scripts.redis_seconds(connection)
    connection.zadd(keyspace.NODES, dict.fromkeys(names, now))
    for name in names:
        connection.sadd(keyspace.queue_workers_key(keyspace.node_queue(name)), f"rq:worker:{name}")
        connection.set(f"rq:worker:{name}", "here")


def outcomes(connection: redis.Redis, run: str) -> list[Outcome]:
    return [one.outcome for _, one in of_run(connection, run)]
