"""What the mesh takes of Redis' memory, held against every key that is there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import redis

from coordinator.runs.footprint import SAMPLE, read_footprint
from coordinator.runs.starting import start
from integration.nodes import cli, workers
from worker.model.plan import Plan, PlannedNode
from worker.probes.icmp.engine import icmp_capability
from worker.wire import keyspace

pytestmark = pytest.mark.redis


def in_all_keys(connection: redis.Redis) -> int:
    """Bytes of every key; this server is the test's own, so it may be scanned."""
    keys: list[Any] = list(connection.scan_iter(count=1000))
    return sum(connection.memory_usage(key) or 0 for key in keys)


@pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")
def test_all_that_a_mesh_keeps_is_counted(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    with workers(redis_url, connection, tmp_path, ["a", "b", "c"]):
        for _ in range(3):
            assert cli(redis_url, "run", "--new", "--count", "2").returncode == 0
        cli(redis_url, "run", "--detach", "--new", "--count", "50")
        cli(redis_url, "run", "--detach", "--new", "--count", "50")
        # Two runs are under way, and what they keep grows meanwhile.
        before = in_all_keys(connection)
        found = read_footprint(connection)
        after = in_all_keys(connection)
    assert not found.estimated
    assert 0.9 * min(before, after) <= found.total <= 1.1 * max(before, after)
    assert all(size > 0 for name, size in vars(found).items() if name != "estimated")


def test_of_many_runs_and_jobs_evenly_spread_ones_are_measured(connection: redis.Redis) -> None:
    names = ("near", "far")
    nodes = tuple(PlannedNode(name=name, address="127.0.0.1") for name in names)
    connection.zadd(keyspace.NODES, dict.fromkeys(names, 1.0))
    plan = Plan(nodes=nodes, sources=(0, 1), targets=(0, 1))
    for _ in range(3 * SAMPLE):
        start(connection, plan, join=False)
    before: Any = connection.info("commandstats")
    found = read_footprint(connection)
    after: Any = connection.info("commandstats")
    calls = sum(one["calls"] for one in after.values())
    calls -= sum(one["calls"] for one in before.values())
    assert found.estimated
    assert math.isclose(found.total, in_all_keys(connection), rel_tol=0.1)
    assert calls < 10 * SAMPLE  # whatever there is


def test_an_empty_redis_holds_nothing_of_ours(connection: redis.Redis) -> None:
    connection.set("another's", "x" * 10_000)
    assert read_footprint(connection).total == 0
