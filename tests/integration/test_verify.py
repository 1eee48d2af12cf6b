"""The proof that a file has exactly one row for each pair of a run's plan."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import redis

from coordinator.collect.collector import Collector
from coordinator.collect.csvfile import HEADER
from coordinator.collect.verify import Pair, verify
from integration.nodes import cli
from worker.model.errors import ConfigError
from worker.model.measurement import Measurement, Outcome
from worker.model.plan import Plan, PlannedNode
from worker.wire import keyspace

pytestmark = pytest.mark.redis

RUN = "20260102T030405000-abcd"
NAMES = ("a", "b", "c", "d")


@pytest.fixture
def plan(connection: redis.Redis) -> Plan:
    nodes = tuple(PlannedNode(name=name, address="10.0.0.1") for name in NAMES)
    plan = Plan(nodes=nodes, sources=(0, 1, 2, 3), targets=(0, 1, 2, 3))
    record: dict[Any, Any] = {"status": "done", "phase": 0, "created": "1.0", "closed": "2.0"}
    connection.hset(keyspace.run_key(RUN), mapping=record | {"plan": plan.packed()})
    return plan


def result(source: str, target: str, **changes: Any) -> Measurement:
    usual = Measurement(
        run=RUN,
        probe="ping",
        source=source,
        target=target,
        address="10.0.0.1",
        started_at=datetime(2026, 1, 2, tzinfo=timezone.utc),
        outcome=Outcome.OK,
    )
    return replace(usual, **changes)


def add(connection: redis.Redis, *measurements: Measurement) -> None:
    for one in measurements:
        connection.xadd(keyspace.RESULTS, dict[Any, Any](one.to_fields()))


@pytest.mark.usefixtures("plan")
def test_whole_run_agrees_and_other_runs_do_not_count(
    connection: redis.Redis, csv_path: Path
) -> None:
    add(connection, *(result(*pair) for pair in permutations(NAMES, 2)))
    add(connection, result("a", "b", run="other"), result("a", "b", run="o", error=f"not {RUN}"))
    Collector(connection, csv_path).drain()
    found = verify(connection, RUN, csv_path)
    assert (found.agrees, found.expected, found.rows) == (True, 12, 12)
    assert found.status == "done"


@pytest.mark.usefixtures("plan")
def test_missing_doubled_and_unexpected_pairs_are_named(
    connection: redis.Redis, csv_path: Path
) -> None:
    add(connection, *(result(*pair) for pair in permutations(NAMES, 2) if pair != ("b", "d")))
    add(connection, *[result("a", "b")] * 300)
    add(connection, result("a", "a"), result("a", "z"), result("a", "b", probe="tcp"))
    Collector(connection, csv_path).drain()
    found = verify(connection, RUN, csv_path)
    assert not found.agrees
    assert found.missing == (Pair("ping", "b", "d"),)
    assert found.doubled == (Pair("ping", "a", "b"),)
    assert found.unexpected == (
        Pair("ping", "a", "a"),
        Pair("ping", "a", "z"),
        Pair("tcp", "a", "b"),
    )
    assert found.rows == 11 + 300 + 3


@pytest.mark.usefixtures("plan")
def test_line_that_is_still_being_written_does_not_count(
    connection: redis.Redis, csv_path: Path
) -> None:
    add(connection, *(result(*pair) for pair in permutations(NAMES, 2)))
    Collector(connection, csv_path).drain()
    csv_path.write_bytes(csv_path.read_bytes()[:-3])
    assert len(verify(connection, RUN, csv_path).missing) == 1


@pytest.mark.usefixtures("plan")
@pytest.mark.parametrize("content", [b"time,host\n", HEADER + RUN.encode() + b",x\n", b"\xff\n"])
def test_file_that_is_not_ours_is_refused(
    connection: redis.Redis, csv_path: Path, content: bytes
) -> None:
    csv_path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(csv_path)):
        verify(connection, RUN, csv_path)
    assert csv_path.read_bytes() == content


@pytest.mark.usefixtures("plan")
def test_missing_file_and_unknown_run_are_told(connection: redis.Redis, csv_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        verify(connection, RUN, csv_path)
    with pytest.raises(ConfigError, match="not known"):
        verify(connection, "never", csv_path)


@pytest.mark.usefixtures("plan")
def test_each_cause_of_a_file_that_is_not_whole_has_its_own_fix(
    redis_url: str, connection: redis.Redis, csv_path: Path
) -> None:
    pairs = list(permutations(NAMES, 2))
    add(connection, *(result(*pair) for pair in pairs[:-1]))
    Collector(connection, csv_path).drain()
    assert verify(connection, RUN, csv_path).fix.startswith("collect again; ")
    connection.hset(keyspace.run_key(RUN), "status", "running")
    assert f"ptzmesh show --follow {RUN}" in verify(connection, RUN, csv_path).fix
    # A row too many does not go by collecting again.
    csv_path.write_text(csv_path.read_text() + csv_path.read_text().splitlines()[-1] + "\n")
    advice = f"rows were edited or copied: ptzmesh results --run {RUN} --csv ANOTHER"
    assert verify(connection, RUN, csv_path).fix == advice
    add(connection, result(*pairs[-1]))
    connection.hset(keyspace.run_key(RUN), "status", "done")
    connection.zadd(keyspace.RUNS, {RUN: 1.0})
    another = csv_path.with_name("another.csv")
    done = cli(redis_url, *advice.partition("ptzmesh ")[2].replace("ANOTHER", str(another)).split())
    assert done.returncode == 0, done.stderr
    assert verify(connection, RUN, another).agrees  # it fixes what it says
