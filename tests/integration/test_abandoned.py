"""Collectors that nobody runs are named, with what forgets them, before they hold anything up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis
from samples import fields_of, fill

from coordinator.collect.collector import Collector
from coordinator.collect.groups import collectors
from coordinator.results.stream import START
from integration.nodes import cli
from worker.model import version
from worker.wire import keyspace, scripts

pytestmark = pytest.mark.redis

GONE = "csv:hub:/data/gone.csv"
FORGET = f"ptzmesh collect --forget {GONE}"


@pytest.fixture
def old_result(connection: redis.Redis) -> None:
    old_ms = int((scripts.redis_seconds(connection) - 3 * 86400) * 1000)
    connection.xadd(keyspace.RESULTS, fields_of(1), id=f"{old_ms}-0")


def register(connection: redis.Redis, *names: str) -> None:
    """Register nodes as their heartbeats would."""
    for number, name in enumerate(names, 1):
        connection.zadd(keyspace.NODES, {name: scripts.redis_seconds(connection)})
        record = {"address": f"127.0.0.{number}", "version": "0", "wire": version.WIRE_VERSION}
        connection.hset(keyspace.node_key(name), mapping=dict(record))


@pytest.mark.usefixtures("old_result")
def test_run_list_and_doctor_name_a_collector_that_nobody_runs_and_what_forgets_it(
    redis_url: str, connection: redis.Redis
) -> None:
    connection.xgroup_create(keyspace.RESULTS, GONE, START)
    register(connection, "a", "b")
    said = cli(redis_url, "run", "--detach")
    assert said.returncode == 0, said.stderr
    assert [FORGET in line for line in said.stderr.splitlines()] == [True]
    assert FORGET in cli(redis_url, "collect", "--list").stdout
    (listed,) = cli(redis_url, "collect", "--list", "--json").stdout.splitlines()
    assert json.loads(listed)["abandoned"] is True
    assert FORGET in cli(redis_url, "doctor").stdout


@pytest.mark.usefixtures("old_result")
def test_a_collector_that_is_run_is_not_abandoned_however_far_behind(
    connection: redis.Redis, tmp_path: Path
) -> None:
    collector = Collector(connection, tmp_path / "all.csv")
    collector.drain()
    connection.xgroup_setid(keyspace.RESULTS, collector.group, START)
    (found,) = collectors(connection)
    assert (found.unread_s or 0) > 2 * 86400
    assert found.idle_s is not None
    assert not found.is_abandoned


def test_where_the_stream_is_full_doctor_asks_for_the_collector_that_holds_it(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    connection.hset(keyspace.LIMITS, "stream_entries", 3)
    connection.xgroup_create(keyspace.RESULTS, GONE, START, mkstream=True)
    fill(connection, 3)
    Collector(connection, tmp_path / "all.csv").drain()
    said = cli(redis_url, "doctor", "--json").stdout.splitlines()
    limits = [one for one in map(json.loads, said) if one["check"] == "limit"]
    (full,) = [one for one in limits if one["status"] == "fail"]
    assert FORGET in full["fix"]
    assert "ptzmesh collect --csv FILE" not in "".join(said)
