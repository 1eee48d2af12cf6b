"""What is kept of runs in the shared Redis stays under its cap."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from coordinator import Mesh
from coordinator.runs import retention
from coordinator.runs.advance import cancel
from coordinator.runs.footprint import bytes_of_runs, run_keys
from coordinator.runs.retention import make_room_for_a_run
from coordinator.runs.runs import read_run, recent
from coordinator.runs.starting import start
from worker.model.errors import ConfigError, RedisUnavailable
from worker.model.plan import Plan, PlannedNode
from worker.wire import keyspace

pytestmark = pytest.mark.redis

NODES = tuple(PlannedNode(name=f"n{i}", address=f"127.0.0.{i + 1}") for i in range(30))
PLAN = Plan(nodes=NODES, sources=tuple(range(30)), targets=tuple(range(30)))


def ended(connection: redis.Redis) -> str:
    run, _ = start(connection, PLAN, join=False)
    cancel(connection, run)
    return run


def are_there(connection: redis.Redis, run: str) -> bool:
    return bool(connection.exists(*run_keys(run)))


def test_the_oldest_ended_runs_make_room(connection: redis.Redis) -> None:
    runs = [ended(connection) for _ in range(6)]
    results: Any = connection.xlen(keyspace.RESULTS)
    of_one = bytes_of_runs(connection, runs[:1])
    make_room_for_a_run(connection, round(3.5 * of_one))
    assert recent(connection, 9) == runs[:2:-1]
    assert [are_there(connection, run) for run in runs] == [False] * 3 + [True] * 3
    assert bytes_of_runs(connection, runs[3:]) <= 3.5 * of_one
    assert connection.xlen(keyspace.RESULTS) == results  # what was measured stays
    with pytest.raises(ConfigError, match="is not known: it is over a week old, newer ones needed"):
        read_run(connection, runs[0])
    make_room_for_a_run(connection, round(3.5 * of_one))
    assert len(recent(connection, 9)) == 3


def test_a_run_that_is_open_is_never_forgotten(connection: redis.Redis) -> None:
    is_open, _ = start(connection, PLAN, join=False)
    gone = ended(connection)
    also_open, _ = start(connection, PLAN, join=False)
    with pytest.raises(RedisUnavailable, match="ptzmesh limits --run-bytes"):
        make_room_for_a_run(connection, 100)
    assert [are_there(connection, run) for run in (is_open, gone, also_open)] == [True, False, True]


def test_nothing_is_forgotten_while_there_is_room(connection: redis.Redis) -> None:
    runs = [ended(connection) for _ in range(3)]
    make_room_for_a_run(connection, 1_000_000)
    assert recent(connection, 9) == runs[::-1]


def test_redis_keeps_so_many_runs_and_no_more(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [ended(connection) for _ in range(4)]
    monkeypatch.setattr(retention, "MAX_RUNS", 3)
    make_room_for_a_run(connection, 1_000_000)
    assert recent(connection, 9) == runs[:1:-1]


def test_a_trigger_keeps_to_the_limit(redis_url: str, connection: redis.Redis) -> None:
    runs = [ended(connection) for _ in range(3)]
    connection.hset(keyspace.LIMITS, "run_bytes", 2 * bytes_of_runs(connection, runs[:1]))
    newest = Mesh(redis_url).start(PLAN).id
    assert newest in recent(connection, 9)
    assert not are_there(connection, runs[0])
    connection.hset(keyspace.LIMITS, "run_bytes", 100)
    with pytest.raises(RedisUnavailable, match="open runs take"):
        Mesh(redis_url).start(PLAN, join=False)
    assert recent(connection, 9) == [newest]


def test_a_late_result_of_a_forgotten_run_is_not_published_again(connection: redis.Redis) -> None:
    from worker.model.measurement import Outcome
    from worker.publish.outbox import Letter, publish
    from worker.wire.rows import Row

    run = ended(connection)
    make_room_for_a_run(connection, 0)
    before: Any = connection.xlen(keyspace.RESULTS)
    row = Row(run=run, plan=PLAN, phase=0, performer=0)
    publish(connection, [Letter(PLAN.bit(0, 1), row.finding((0, 1), Outcome.TIMEOUT, "late"))])
    assert connection.xlen(keyspace.RESULTS) == before
    assert not are_there(connection, run)
