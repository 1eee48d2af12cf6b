"""How many round trips a test with two ends takes one after the other: on a long way, its time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from counting_proxy import CountingProxy, counting_proxy, open_connection

from coordinator.runs.starting import start
from integration.holding import A, B, C, held
from integration.rows import beat, plan
from worker.identity.context import NodeContext
from worker.model.measurement import Outcome
from worker.model.options import PingOptions, ThroughputOptions
from worker.model.policy import Policy
from worker.probes.iperf3.tool import find_iperf3
from worker.transfer.answer import Answer, Request, next_answer, send_answer
from worker.transfer.asking import Gone, ask
from worker.transfer.before import read_before
from worker.transfer.far import serve
from worker.transfer.keeper import Keeper
from worker.transfer.leases import End, acquire, end_of, new_token, renew
from worker.transfer.turns import Turns
from worker.wire import keyspace
from worker.wire.rows import load_row

pytestmark = pytest.mark.redis


@pytest.fixture
def proxy(redis_url: str, connection: redis.Redis) -> Iterator[CountingProxy]:
    """The way to a server that has seen the scripts, which are loaded once in its life."""
    lease = held(connection, A, B)
    renew(connection, lease)
    Turns(connection, A, []).finish(lease)
    with counting_proxy(redis_url) as made:
        yield made


@pytest.fixture
def near(proxy: CountingProxy) -> Iterator[redis.Redis]:
    """A connection by that way, which is open."""
    with open_connection(proxy) as connection:
        yield connection


def test_what_is_known_before_the_tests_of_a_row_is_asked_at_once(
    near: redis.Redis, connection: redis.Redis, proxy: CountingProxy
) -> None:
    run, _ = start(
        connection, plan(options={"ping": PingOptions(), "throughput": ThroughputOptions()})
    )
    row = load_row(connection, run, 1, 0)
    assert row is not None
    connection.hset(keyspace.node_key("n1"), mapping={"links": '{"cell": 1}'})
    connection.hset(keyspace.node_key("n1"), "clock_offset_uncertainty_ms", "400.0")
    before = read_before(near, row, ["n1", "n2"], has_budget=True)
    assert proxy.trips == 1
    assert end_of("n1", before.far["n1"]).links == {"cell": 1}
    assert end_of("n1", before.far["n1"]).way_s == 0.8
    assert end_of("n2", before.far["n2"]).way_s == 0.0
    assert (before.idle, before.spent_bytes) == ({}, 0)


def test_lease_is_one_round_trip_and_says_what_is_asked_before_a_test(
    near: redis.Redis, connection: redis.Redis, proxy: CountingProxy
) -> None:
    beat(connection, "a", "b")
    connection.hset(keyspace.node_key("b"), "address", "10.0.0.7")
    lease = acquire(near, new_token(), A, [B], reserve_bytes=40).lease
    assert proxy.trips == 1
    assert lease is not None
    assert lease.found is not None
    assert (lease.found.far_address, lease.found.near_spent_bytes) == ("10.0.0.7", 40)
    assert -0.01 < lease.found.far_missing_s < 30  # of a clock in milliseconds


@pytest.mark.parametrize("kind", ["string", "none"])
def test_far_end_without_a_record_is_nowhere_and_was_never_heard(
    connection: redis.Redis, kind: str
) -> None:
    if kind == "string":
        connection.set(keyspace.node_key("b"), "no record")
    lease = acquire(connection, new_token(), A, [B]).lease
    assert lease is not None
    assert lease.found is not None
    assert (lease.found.far_address, lease.found.far_missing_s) == ("", float("inf"))


def test_turn_that_was_not_waited_for_is_two_round_trips_and_the_end_none(
    near: redis.Redis, proxy: CountingProxy
) -> None:
    turns = Turns(near, A, [B, C])
    for _ in range(2):
        lease = turns.take()
        assert lease is not None
        turns.finish(lease)
    assert proxy.trips == 4
    assert turns.take() is None
    assert proxy.trips == 4


def test_far_that_was_heard_as_the_lease_was_taken_is_asked_without_another_look(
    near: redis.Redis, connection: redis.Redis, proxy: CountingProxy
) -> None:
    request = Request(
        run="r", phase=0, performer=0, token="t.0", number=0, family=4, idle_rtt_ms=None  # noqa: S106
    )  # fmt: skip
    ready = Answer(port=5201, version="3")

    def asked(missing_s: float | None) -> Answer | Gone | None:
        connection.delete(keyspace.ready_key("t.0"))
        send_answer(connection, "t.0", ready)
        keeper = Keeper(near, held(connection, A, B))
        connection.delete(keyspace.lease_key("a"), keyspace.lease_key("b"))
        proxy.trips = 0
        return ask(
            near, "b", request, timeout_s=60, keeper=keeper, should_stop=bool, missing_s=missing_s
        )

    beat(connection, "b")
    asked(1.0)  # RQ asks a server once for its version
    assert asked(1.0) == ready
    known = proxy.trips
    assert asked(None) == ready
    assert proxy.trips == known + 1
    assert asked(31.0) == Gone("was not heard for 31 s")
    assert proxy.trips == 0


@pytest.mark.skipif(bool(find_iperf3().fault), reason="no iperf3")
@pytest.mark.parametrize("limited", [False, True])
def test_far_answers_in_its_fourth_round_trip_and_connecting_is_the_first(
    connection: redis.Redis, proxy: CountingProxy, tmp_path: Path, limited: bool
) -> None:
    run, _ = start(connection, plan(options={"throughput": ThroughputOptions()}))
    connection.hset(keyspace.node_key("n0"), "address", "127.0.0.1")
    lease = acquire(connection, new_token(), End(name="n0"), [End(name="n1")]).lease
    assert lease is not None
    context = NodeContext(
        name="n1",
        address="127.0.0.2",
        redis_url=proxy.url,
        outbox_path=tmp_path / "outbox",
        policy=Policy(sources=frozenset({"n2"}) if limited else frozenset()),
        iperf3=find_iperf3(),
        should_stop=lambda: True,  # the server ends as soon as it listens
    )
    token = f"{lease.token}.0"
    request = Request(
        run=run, phase=0, performer=0, token=token, number=0, family=4, idle_rtt_ms=None
    )
    proxy.trips = 0
    serve(context, request)
    assert proxy.trips == 4
    answer = next_answer(connection, token, 1)
    assert answer is not None
    assert answer.outcome == (Outcome.DENIED if limited else Outcome.OK)
