"""Which end of a pair was lost, and whose clock its record has, whoever performs the test."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import redis
from chaos.clock import NodeClock, build, why_unusable
from waiting import wait_until

from coordinator.runs.advance import advance
from coordinator.runs.runs import of_run, read_run
from coordinator.runs.starting import start
from integration.nodes import workers
from worker.host import machine
from worker.model import version
from worker.model.measurement import Measurement, Outcome
from worker.model.options import ThroughputOptions
from worker.model.plan import Plan, PlannedNode
from worker.probes.iperf3.tool import find_iperf3
from worker.wire import keyspace, liveness, scripts

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(bool(find_iperf3().fault), reason="no iperf3"),
]

ADDRESSES = {"a": "127.0.0.1", "b": "127.0.0.2"}
#: Of b's clock; and how long a run of a few kB takes at most, on a busy machine.
AHEAD_S, NEAR_S = 5000.0, 100.0


@dataclass(frozen=True)
class Way:
    """Who connects to whom, by all that decides it."""

    reverse: bool = False
    bidir: bool = False
    behind_nat: str = ""
    order: str = "ab"

    def plan(self) -> Plan:
        nodes = tuple(
            PlannedNode(name=name, address=ADDRESSES[name], accepts=name != self.behind_nat)
            for name in self.order
        )
        options = ThroughputOptions(
            bytes_limit=400_000,
            bitrate_mbps=8,
            duration_s=2,
            reverse=self.reverse,
            bidir=self.bidir,
        )
        return Plan(nodes=nodes, sources=(0, 1), targets=(0, 1), options={"throughput": options})


WAYS = [
    *(Way(reverse=reverse, behind_nat=nat) for reverse, nat in product((False, True), ("", "a"))),
    *(
        Way(bidir=True, behind_nat=nat, order=order)
        for nat, order in product(("", "b"), ("ab", "ba"))
    ),
]


def measured(connection: redis.Redis, way: Way) -> dict[str, Measurement]:
    """Give the row of each source of a run, carried to its end."""
    run, _ = start(connection, way.plan(), join=False)

    def is_done() -> bool:
        advance(connection, run)
        return not read_run(connection, run).is_open

    wait_until(is_done, f"the run ends: {way}")
    return {one.source: one for _, one in of_run(connection, run)}


def address_of(connection: redis.Redis, name: str) -> str:
    return (connection.hget(keyspace.node_key(name), "address") or b"").decode()


def register_dead(connection: redis.Redis, name: str, ago_s: float = 60) -> None:
    """Make a node look as if it had died a minute ago, or sooner."""
    record: dict[Any, Any] = {"address": ADDRESSES[name], "wire": version.WIRE_VERSION}
    # As those of a, with which it shares the addresses of loopback.
    record |= {"boot": machine.boot_id(), "netns": machine.network_namespace(), "accepts": "1"}
    record |= {"clock_offset_ms": AHEAD_S * 1000, "clock_offset_uncertainty_ms": 1.0}
    connection.hset(keyspace.node_key(name), mapping=record)
    connection.zadd(keyspace.NODES, {name: scripts.redis_seconds(connection) - ago_s})


def test_far_end_whose_limits_are_invalid_is_left_out_and_the_others_are_tested(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    with workers(redis_url, connection, tmp_path, ["a", "c"]):
        register_dead(connection, "b", ago_s=0)
        connection.hset(keyspace.node_key("b"), "links", '{"uplink": "many"}')
        nodes = tuple(PlannedNode(name=name, address=ADDRESSES[name]) for name in "ab")
        nodes += (PlannedNode(name="c", address=address_of(connection, "c")),)
        options = ThroughputOptions(bytes_limit=400_000, bitrate_mbps=8, duration_s=2)
        plan = Plan(nodes=nodes, sources=(0,), targets=(1, 2), options={"throughput": options})
        run, _ = start(connection, plan)
        wait_until(lambda: read_run(connection, run).published == 2, "both are published")
        found = {one.target: (one.outcome, one.error) for _, one in of_run(connection, run)}
        error = "b: its links or its daily budget in the registry are invalid"
        assert found == {"b": (Outcome.DENIED, error), "c": (Outcome.OK, "")}


def test_end_that_died_is_named_whoever_performs_the_test(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    with workers(redis_url, connection, tmp_path, ["a"]):
        register_dead(connection, "b")
        for way in WAYS:
            rows = measured(connection, way)
            found = {source: (row.outcome, row.error) for source, row in rows.items()}
            assert found["a"][0] is Outcome.TARGET_LOST, (way, found)
            assert found["b"][0] is Outcome.SOURCE_LOST, (way, found)
            assert found["a"][1].startswith("target b was not heard for "), (way, found)
            assert found["b"][1].startswith("source b was not heard for "), (way, found)
            assert_source_clock(connection, rows)
        connection.hset(keyspace.node_key("b"), "stopped", "1")
        connection.zadd(keyspace.NODES, {"b": scripts.redis_seconds(connection)})
        row = measured(connection, Way(bidir=True))["a"]
        assert (row.outcome, row.error) == (Outcome.TARGET_LOST, "target b was stopped")


def test_end_that_dies_while_it_is_asked_is_lost_and_before_that_was_last_heard_so_long_ago(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    with workers(redis_url, connection, tmp_path, ["a"]):
        # The responder of b is waited for 8 s, in which it comes to count as lost.
        register_dead(connection, "b", ago_s=liveness.ALIVE_S - 4)
        found = measured(connection, Way(bidir=True))
        assert {name: row.outcome for name, row in found.items()} == {
            "a": Outcome.TARGET_LOST,
            "b": Outcome.SOURCE_LOST,
        }
        register_dead(connection, "b", ago_s=8)
        error = measured(connection, Way(bidir=True))["a"].error
        # A machine that is busy takes longer.
        assert re.fullmatch(
            "the responder of b did not answer within 8 s, and b was last heard [12][0-9] s ago"
            "|target b was not heard for [3-9][0-9] s",
            error,
        ), error


@pytest.mark.skipif(why_unusable() is not None, reason=why_unusable() or "")
def test_time_of_a_record_is_by_the_clock_of_its_source_whoever_performs_the_test(
    redis_url: str, connection: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = NodeClock(build(tmp_path), tmp_path / "clock")
    clock.step(AHEAD_S)
    with ExitStack() as stack:
        stack.enter_context(workers(redis_url, connection, tmp_path, ["a"]))
        for setting in clock.prefix[1:]:
            monkeypatch.setenv(*setting.split("=", 1))
        stack.enter_context(workers(redis_url, connection, tmp_path, ["b"], first=2))
        for name in ("LD_PRELOAD", "CHAOS_CLOCK"):
            monkeypatch.delenv(name)
        for way in (Way(reverse=True), Way(bidir=True), Way(behind_nat="a")):
            rows = measured(connection, way)
            assert {row.outcome for row in rows.values()} == {Outcome.OK}, (way, rows)
            assert_source_clock(connection, rows)


def assert_source_clock(connection: redis.Redis, rows: dict[str, Measurement]) -> None:
    """See that the rows of b have its clock, which is ahead, and those of a have a's."""
    now = scripts.redis_seconds(connection)
    for source, ahead_s in (("a", 0.0), ("b", AHEAD_S)):
        row = rows[source]
        assert abs((row.detail.clock_offset_ms or 0.0) / 1000 - ahead_s) < NEAR_S
        assert abs(row.started_at.timestamp() - ahead_s - now) < NEAR_S
