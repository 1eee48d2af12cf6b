"""What tests cost each end: reserved before, noted in between, settled after; budgets are exact."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from waiting import wait_until

from integration.holding import A, B, C, held, keys, take
from worker.transfer import leases
from worker.transfer.keeper import Keeper
from worker.transfer.leases import End
from worker.wire import keyspace, scripts
from worker.wire.connection import server

pytestmark = pytest.mark.redis

#: A day has so much left at least when a test begins, and no test takes longer.
LIMIT_S = 60.0


@pytest.fixture
def one_day(connection: redis.Redis) -> None:
    """Budgets are those of a day (UTC): begin where none ends soon."""
    left_s = 86400 - scripts.redis_seconds(connection) % 86400
    if left_s < LIMIT_S:
        time.sleep(left_s + 1)


@pytest.mark.usefixtures("one_day")
def test_same_call_again_gives_the_same_lease_and_reserves_once(connection: redis.Redis) -> None:
    token = leases.new_token()
    first = leases.acquire(connection, token, A, [C, B], reserve_bytes=10)
    again = leases.acquire(connection, token, A, [C, B], reserve_bytes=10)
    assert first.lease == again.lease
    assert first.lease is not None
    assert leases.spent_today(connection, ["a", "c"]) == {"a": 10, "c": 10}


@pytest.mark.parametrize("junk", ["x", "", "1.5", "nan", "9" * 30])
@pytest.mark.usefixtures("one_day")
def test_count_that_is_none_is_over_a_limit_and_is_begun_again_where_there_is_none(
    connection: redis.Redis, junk: str
) -> None:
    day = int(scripts.redis_seconds(connection) // 86400)
    connection.hset(keyspace.budget_key("b"), str(day), junk)
    limited = End(name="b", bytes_per_day=10**9)
    attempt = take(connection, A, limited, C, reserve_bytes=10)
    assert attempt.lease is not None
    assert (attempt.lease.far, attempt.over_budget) == ("c", ("b",))
    leases.release(connection, attempt.lease)
    assert held(connection, A, B, reserve_bytes=10).far == "b"
    assert leases.spent_today(connection, ["b"]) == {"b": 10}


@pytest.mark.usefixtures("one_day")
def test_bytes_are_reserved_before_and_settled_after(connection: redis.Redis) -> None:
    lease = held(connection, A, B, reserve_bytes=1000)
    assert leases.spent_today(connection, ["a", "b", "c"]) == {"a": 1000, "b": 1000, "c": 0}
    leases.release(connection, lease, spent_bytes=400)
    leases.release(connection, lease, spent_bytes=400)
    assert leases.spent_today(connection, ["a", "b"]) == {"a": 400, "b": 400}


@pytest.mark.usefixtures("one_day")
def test_what_a_test_costs_beyond_its_reservation_is_noted_as_it_runs(
    connection: redis.Redis,
) -> None:
    lease = held(connection, A, B, reserve_bytes=1000)
    for cost, noted in ((400, 1000), (5000, 5000), (4000, 5000), (2**53 - 1, 2**53 - 1)):
        assert leases.renew(connection, lease, cost_bytes=cost)
        assert leases.spent_today(connection, ["a", "b", "c"]) == {"a": noted, "b": noted, "c": 0}
    kept_s = connection.ttl(keyspace.reserved_key(lease.token))
    assert leases.BUDGET_TTL_S - LIMIT_S < int(kept_s) <= leases.BUDGET_TTL_S
    leases.release(connection, lease, spent_bytes=3000)
    assert leases.spent_today(connection, ["a", "b"]) == {"a": 3000, "b": 3000}


@pytest.mark.usefixtures("one_day")
def test_bytes_of_a_test_that_nobody_settled_stay_spent(connection: redis.Redis) -> None:
    lease = held(connection, A, B, reserve_bytes=1000)
    leases.release(connection, lease)
    assert leases.spent_today(connection, ["a"]) == {"a": 1000}
    other = held(connection, A, B, reserve_bytes=500, ttl_s=0.02)
    wait_until(lambda: not keys(connection), "the leases have lapsed")
    assert leases.spent_today(connection, ["a"]) == {"a": 1500}
    leases.release(connection, other, spent_bytes=1)
    assert leases.spent_today(connection, ["a"]) == {"a": 1001}


@pytest.mark.usefixtures("one_day")
def test_large_counts_of_bytes_stay_exact(connection: redis.Redis) -> None:
    large = 10**15 + 1
    lease = held(connection, A, B, reserve_bytes=large)
    assert leases.spent_today(connection, ["a"]) == {"a": large}
    leases.release(connection, lease, spent_bytes=large - 3)
    assert leases.spent_today(connection, ["a"]) == {"a": large - 3}


@pytest.mark.usefixtures("one_day")
def test_far_end_over_its_budget_is_passed_over_and_named(connection: redis.Redis) -> None:
    poor = End(name="b", bytes_per_day=999)
    attempt = take(connection, A, poor, C, reserve_bytes=1000)
    assert attempt.over_budget == ("b",)
    assert attempt.lease is not None
    assert attempt.lease.far == "c"
    assert leases.spent_today(connection, ["b"]) == {"b": 0}


def test_near_over_its_budget_takes_nothing(connection: redis.Redis) -> None:
    attempt = take(connection, End(name="a", bytes_per_day=999), B, reserve_bytes=1000)
    assert attempt.near_over_budget
    assert attempt.lease is None
    assert not keys(connection)
    assert not connection.hgetall(keyspace.WAITING)


@pytest.mark.usefixtures("one_day")
def test_budget_is_never_exceeded_by_many_at_once(redis_url: str, connection: redis.Redis) -> None:
    def spend(number: int) -> int:
        own, got = server.connect(redis_url), 0
        hub = End(name="hub", bytes_per_day=1000)
        # Until there is no room: a near that is held up in a test leaves the others without.
        near = End(name=f"n{number}")
        while not (attempt := take(own, near, hub, reserve_bytes=100)).over_budget:
            if attempt.lease is not None:
                got += 1
                leases.release(own, attempt.lease, spent_bytes=100 if got % 2 else 90)
        own.close()
        return got

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(8))) >= 10
    assert 900 < leases.spent_today(connection, ["hub"])["hub"] <= 1000


def test_keeper_notices_that_the_lease_is_lost(connection: redis.Redis) -> None:
    lease = held(connection, A, B)
    keeper = Keeper(connection, lease, ttl_s=0.03)
    wait_until(
        lambda: connection.pttl(keyspace.lease_key("a")) <= 30 or keeper.lost(),
        "the lease is renewed for its own time",
    )
    assert not keeper.lost()
    connection.set(keyspace.lease_key("a"), "another")
    wait_until(keeper.lost, "the keeper sees that the lease is lost")


@pytest.mark.usefixtures("one_day")
def test_keeper_notes_what_was_carried_and_what_will_be_until_it_looks_again(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, carried = [1000.0], [7_000_000]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    keeper = Keeper(connection, held(connection, A, B), ttl_s=15, carried=lambda: carried[0])
    for seconds, more, noted in (
        (0.9, 900_000, 0),  # not yet
        (0.1, 100_000, 6_000_000),
        (5.0, 10_000_000, 21_000_000),
        (5.0, 0, 21_000_000),
        (5.0, -18_000_000, 21_000_000),  # the interface came up anew
    ):
        now[0] += seconds
        carried[0] += more
        assert not keeper.lost()
        assert leases.spent_today(connection, ["a"]) == {"a": noted}
