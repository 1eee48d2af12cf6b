"""What a record says of when the other node was last heard."""

from __future__ import annotations

import pytest
import redis

from coordinator.cli.view.reasons import reasons
from coordinator.results.matrix import make_report
from worker.model.measurement import Measurement, Outcome
from worker.model.plan import Plan, PlannedNode
from worker.publish.last_heard import with_last_heard
from worker.wire import keyspace, scripts
from worker.wire.connection import server

pytestmark = pytest.mark.redis


def row(source: str, target: str, outcome: Outcome, error: str = "nobody answered") -> Measurement:
    return Measurement(
        run="r",
        probe="ping",
        source=source,
        target=target,
        address="192.0.2.1",
        outcome=outcome,
        error=error,
    )


@pytest.fixture
def registry(connection: redis.Redis) -> redis.Redis:
    """Have a that is heard, b that was not for 20 s, and c that was for 9 s."""
    now = scripts.redis_seconds(connection)
    connection.zadd(keyspace.NODES, {"a": now, "b": now - 20, "c": now - 9})
    return connection


def test_only_who_is_overdue_and_did_not_answer_is_said_to_be_silent(
    registry: redis.Redis,
) -> None:
    asked = [
        row("a", "b", Outcome.NO_REPLY),
        row("b", "a", Outcome.TIMEOUT, "no server"),
        row("a", "c", Outcome.NO_REPLY),
        row("a", "d", Outcome.NO_REPLY),
        row("a", "b", Outcome.OK, ""),
        row("a", "b", Outcome.BAD_REPLY, "it broke; try this"),
        row("a", "b", Outcome.DENIED),
    ]
    said = [one.error for one in with_last_heard(registry, asked, "a")]
    assert said == [
        "nobody answered, and b was last heard 20 s ago",
        "no server, and b was last heard 20 s ago",
        "nobody answered",
        "nobody answered",
        "",
        "it broke, and b was last heard 20 s ago; try this",
        "nobody answered",
    ]


def test_nobody_is_silent_for_the_time_in_which_redis_was_away(registry: redis.Redis) -> None:
    asked = [row("a", "b", Outcome.NO_REPLY)]
    registry.set(keyspace.BACK, repr(scripts.redis_seconds(registry) - 3))
    assert with_last_heard(registry, asked, "a") == asked
    registry.delete(keyspace.BACK)
    assert with_last_heard(registry, asked, "a") != asked
    registry.zrem(keyspace.NODES, "a", "c")
    assert with_last_heard(registry, asked, "a") == asked


def test_redis_that_is_away_leaves_the_records_as_they_are() -> None:
    asked = [row("a", "b", Outcome.NO_REPLY)]
    away = server.connect("redis://127.0.0.1:1/0", connect_timeout_s=0.5, retries=0)
    assert with_last_heard(away, asked, "a") == asked


def test_sources_that_miss_one_node_since_different_seconds_have_one_reason() -> None:
    nodes = tuple(PlannedNode(name=name, address="192.0.2.1") for name in "abcd")
    plan = Plan(nodes=nodes, sources=(0, 1, 2), targets=(3,))
    rows = [
        row(name, "d", Outcome.NO_REPLY, f"nobody answered, and d was last heard {20 + n} s ago")
        for n, name in enumerate("abc")
    ]
    told = [str(line) for line in reasons(make_report(plan, rows), "r")]
    assert told[0].startswith("ping a -> d, b -> d and 1 more: lost: nobody answered, and d")
