"""Leases on a real server: both ends or neither, budgets exact, waiting prompt and cheap."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import permutations
from statistics import median
from typing import Any

import pytest
import redis
from waiting import wait_until

from worker.model.tournament import tournament_order
from worker.transfer import leases
from worker.transfer.keeper import Keeper
from worker.transfer.leases import Attempt, End, Lease
from worker.transfer.turns import Order, Turns
from worker.wire import keyspace, scripts
from worker.wire.connection import server

pytestmark = pytest.mark.redis

A, B, C = End(name="a"), End(name="b"), End(name="c")
LIMIT_S = 60.0
#: A delay is that of the quickest of so many: whatever else runs here may hold up any of them.
TRIES = 30


def take(connection: redis.Redis, source: End, *targets: End, **how: Any) -> Attempt:
    return leases.acquire(connection, leases.new_token(), source, targets, **how)


def held(connection: redis.Redis, source: End, *targets: End, **how: Any) -> Lease:
    lease = take(connection, source, *targets, **how).lease
    assert lease is not None
    return lease


def keys(connection: redis.Redis, pattern: str = "ptzmesh:lease:*") -> set[bytes | str]:
    return set(connection.keys(pattern))


@pytest.fixture
def one_day(connection: redis.Redis) -> None:
    """Budgets are those of a day (UTC): begin where none ends soon."""
    left_s = 86400 - scripts.redis_seconds(connection) % 86400
    if left_s < LIMIT_S:
        time.sleep(left_s + 1)


@contextmanager
def watched(connection: redis.Redis) -> Iterator[dict[str, int]]:
    """Count the commands of clients, and those inside scripts, until the block ends."""
    before = calls(connection)
    spent: dict[str, int] = {}
    yield spent
    spent.update({name: n - before.get(name, 0) for name, n in calls(connection).items()})


def calls(connection: redis.Redis) -> dict[str, int]:
    stats = connection.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(row["calls"]) for name, row in stats.items()}


def test_both_ends_are_held_or_neither(connection: redis.Redis) -> None:
    lease = held(connection, A, B)
    assert (lease.near, lease.far) == ("a", "b")
    assert keys(connection) == {b"ptzmesh:lease:a", b"ptzmesh:lease:b"}
    assert take(connection, C, A, B).lease is None
    assert take(connection, C, B).lease is None
    assert take(connection, A, C).lease is None
    assert keys(connection) == {b"ptzmesh:lease:a", b"ptzmesh:lease:b"}


def test_first_target_in_order_that_is_free_is_taken(connection: redis.Redis) -> None:
    held(connection, B, End(name="d"))
    assert held(connection, A, B, End(name="d"), C).far == "c"


def test_who_holds_which_node_is_known_by_the_token(connection: redis.Redis) -> None:
    lease = held(connection, A, B)
    assert leases.holds(connection, "b", lease.token)
    assert not leases.holds(connection, "b", "another")
    assert not leases.holds(connection, "c", lease.token)


@pytest.mark.usefixtures("one_day")
def test_same_call_again_gives_the_same_lease_and_reserves_once(connection: redis.Redis) -> None:
    token = leases.new_token()
    first = leases.acquire(connection, token, A, [C, B], reserve_bytes=10)
    again = leases.acquire(connection, token, A, [C, B], reserve_bytes=10)
    assert first.lease == again.lease
    assert first.lease is not None
    assert leases.spent_today(connection, ["a", "c"]) == {"a": 10, "c": 10}


def test_only_the_token_gives_up_what_it_holds(connection: redis.Redis) -> None:
    lease = held(connection, A, B)
    other = Lease(token=leases.new_token(), near="a", far="b")
    leases.release(connection, other)
    assert not leases.renew(connection, other)
    assert len(keys(connection)) == 2
    leases.release(connection, lease)
    assert not keys(connection)


def test_late_release_leaves_the_next_holder_alone(connection: redis.Redis) -> None:
    lease = held(connection, A, B, ttl_s=0.03)
    wait_until(lambda: not keys(connection), "the leases have lapsed")
    next_one = held(connection, C, B)
    leases.release(connection, lease)
    assert leases.holds(connection, "b", next_one.token)
    assert not leases.renew(connection, lease)
    assert not connection.exists(keyspace.lease_key("a"))


def test_lease_lapses_by_itself_and_says_when(connection: redis.Redis) -> None:
    lease = held(connection, A, B)
    attempt = take(connection, C, B)
    assert attempt.lease is None
    assert attempt.lapses_s is not None
    assert 0 < attempt.lapses_s <= leases.LEASE_TTL_S
    leases.renew(connection, lease, ttl_s=0.2)
    wait_until(lambda: take(connection, C, B).lease is not None, "the lease can be taken")


def test_lease_from_before_redis_clock_was_set_back_lapses_in_time(connection: redis.Redis) -> None:
    hour_ms = 3_600_000
    connection.set(keyspace.lease_key("a"), "of-a-dead-node", px=hour_ms)
    now_ms = 1000 * scripts.redis_seconds(connection)
    connection.zadd(keyspace.link_key("uplink"), {"of-a-dead-node": now_ms + hour_ms})
    uplink = End(name="c", links={"uplink": 1})
    assert take(connection, End(name="b"), End(name="a")).lease is None
    assert take(connection, uplink, End(name="d")).lease is None
    assert connection.pttl(keyspace.lease_key("a")) <= 1000 * leases.LEASE_TTL_S
    left_ms = connection.zscore(keyspace.link_key("uplink"), "of-a-dead-node") - now_ms
    assert left_ms <= 1000 * leases.LEASE_TTL_S + 1000 * LIMIT_S


def test_renewed_lease_outlives_its_first_time(connection: redis.Redis) -> None:
    lease = held(connection, A, B, ttl_s=0.2)
    assert leases.renew(connection, lease, ttl_s=60)
    assert connection.pttl(keyspace.lease_key("a")) > 50_000
    assert connection.pttl(keyspace.lease_key("b")) > 50_000


def test_lease_that_nobody_took_is_renewed_after_it_lapsed(connection: redis.Redis) -> None:
    lease = held(connection, A, B)
    connection.delete(keyspace.lease_key("a"), keyspace.lease_key("b"))
    assert leases.renew(connection, lease)
    assert leases.holds(connection, "a", lease.token)


def test_keeper_notices_that_the_lease_is_lost(connection: redis.Redis) -> None:
    lease = held(connection, A, B)
    keeper = Keeper(connection, lease, ttl_s=0.03)
    wait_until(
        lambda: connection.pttl(keyspace.lease_key("a")) <= 30 or keeper.lost(),
        "the lease is about to lapse",
    )
    assert not keeper.lost()
    connection.set(keyspace.lease_key("a"), "another")
    wait_until(keeper.lost, "the keeper sees that the lease is lost")


def test_shared_link_carries_its_capacity_and_no_more(connection: redis.Redis) -> None:
    ends = [End(name=f"n{i}", links={"cell-7": 2}) for i in range(3)]
    others = [End(name=f"m{i}") for i in range(3)]
    first = held(connection, ends[0], others[0])
    held(connection, others[1], ends[1])
    assert take(connection, ends[2], others[2]).lease is None
    assert not connection.exists(keyspace.lease_key("n2"), keyspace.lease_key("m2"))
    leases.release(connection, first)
    assert take(connection, ends[2], others[2]).lease is not None


def test_link_on_both_ends_is_on_the_way_once(connection: redis.Redis) -> None:
    a, b = End(name="a", links={"hub": 1}), End(name="b", links={"hub": 1})
    lease = held(connection, a, b)
    assert lease.links == ("hub",)
    assert connection.zcard(keyspace.link_key("hub")) == 1


def test_link_of_a_crashed_test_is_free_after_its_time(connection: redis.Redis) -> None:
    a, b = End(name="a", links={"cell": 1}), End(name="b", links={"cell": 1})
    lease = held(connection, a, C)
    assert take(connection, b, End(name="d")).lease is None
    leases.renew(connection, lease, ttl_s=0.05)
    wait_until(
        lambda: take(connection, b, End(name="d")).lease is not None, "the lease can be taken"
    )


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
    kept_s = connection.ttl(keyspace.BUDGET_PREFIX + "reserved:" + lease.token)
    assert leases.BUDGET_TTL_S - LIMIT_S < int(kept_s) <= leases.BUDGET_TTL_S
    leases.release(connection, lease, spent_bytes=3000)
    assert leases.spent_today(connection, ["a", "b"]) == {"a": 3000, "b": 3000}


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
def test_target_over_its_budget_is_passed_over_and_named(connection: redis.Redis) -> None:
    poor = End(name="b", bytes_per_day=999)
    attempt = take(connection, A, poor, C, reserve_bytes=1000)
    assert attempt.over_budget == ("b",)
    assert attempt.lease is not None
    assert attempt.lease.far == "c"
    assert leases.spent_today(connection, ["b"]) == {"b": 0}


def test_source_over_its_budget_takes_nothing(connection: redis.Redis) -> None:
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
        # Until there is no room: a source that is held up in a test leaves the others without.
        source = End(name=f"n{number}")
        while not (attempt := take(own, source, hub, reserve_bytes=100)).over_budget:
            if attempt.lease is not None:
                got += 1
                leases.release(own, attempt.lease, spent_bytes=100 if got % 2 else 90)
        own.close()
        return got

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(8))) >= 10
    assert 900 < leases.spent_today(connection, ["hub"])["hub"] <= 1000


def contend(url: str, number: int, seconds: float, report: Any) -> None:
    """Take and give up leases among eight nodes as fast as possible, marking who is in a test."""
    connection, rng = server.connect(url), random.Random(number)
    names, overlaps, taken = [f"n{i}" for i in range(8)], 0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or taken < 50:
        source, *targets = rng.sample(names, 4)
        lease = take(connection, End(name=source), *(End(name=t) for t in targets)).lease
        if lease is None:
            continue
        pair, taken = (lease.near, lease.far), taken + 1
        overlaps += sum(connection.incr(f"busy:{name}") != 1 for name in pair)
        for name in pair:
            connection.decr(f"busy:{name}")
        leases.release(connection, lease)
    report.put((taken, overlaps))
    connection.close()


def test_no_node_is_ever_in_two_tests_whatever_the_contention(redis_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    report = context.Queue()
    workers = [
        context.Process(target=contend, args=(redis_url, number, 1.5, report))
        for number in range(4)
    ]
    for worker in workers:
        worker.start()
    counts = [report.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    report.close()
    report.join_thread()
    assert sum(taken for taken, _ in counts) > 100
    assert sum(overlaps for _, overlaps in counts) == 0


def test_release_wakes_who_waits_within_100_ms(redis_url: str, connection: redis.Redis) -> None:
    def delay_s() -> float:
        lease = held(connection, A, B)
        started: list[float] = []

        def wait_for_b() -> None:
            own = server.connect(redis_url)
            turns = Turns(own, C, [B], order=Order.GIVEN_UP)
            taken = turns.take()
            started.append(time.monotonic())
            assert taken is not None
            leases.release(own, taken)
            own.close()

        waiting = threading.Thread(target=wait_for_b)
        waiting.start()
        wait_until(lambda: bool(connection.hget(keyspace.WAITING, "c")), "c waits")
        time.sleep(0.05)
        given_up = time.monotonic()
        leases.release(connection, lease)
        waiting.join(LIMIT_S)
        return started[0] - given_up

    assert any(delay_s() < 0.1 for _ in range(TRIES))


def test_lapse_lets_who_waits_begin_within_100_ms(redis_url: str, connection: redis.Redis) -> None:
    own = server.connect(redis_url)

    def delay_s() -> float:
        held(connection, A, B, ttl_s=0.3)
        lapses_at = time.monotonic() + 0.3
        taken = Turns(own, C, [B], order=Order.GIVEN_UP).take()
        begun = time.monotonic()
        assert taken is not None
        leases.release(own, taken)
        return begun - lapses_at

    assert any(delay_s() < 0.1 for _ in range(TRIES))
    own.close()


def test_release_wakes_only_who_can_use_it(connection: redis.Redis) -> None:
    lease, other = held(connection, A, B), held(connection, C, End(name="d"))
    assert take(connection, End(name="e"), B).lease is None
    assert take(connection, End(name="f"), C).lease is None
    assert take(connection, B, End(name="f")).lease is None
    leases.release(connection, lease)
    assert keys(connection, "ptzmesh:wake:*") == {b"ptzmesh:wake:e", b"ptzmesh:wake:b"}
    assert set(connection.hgetall(keyspace.WAITING)) == {b"f"}
    leases.release(connection, other)
    assert b"ptzmesh:wake:f" in keys(connection, "ptzmesh:wake:*")


def test_who_held_the_target_hears_that_it_wants_to_test_back(connection: redis.Redis) -> None:
    lease = held(connection, A, B)
    assert take(connection, B, C, A).lease is None
    assert leases.release(connection, lease)
    lease = held(connection, A, B)
    assert take(connection, B, C).lease is None
    assert not leases.release(connection, lease)


def test_who_leaves_is_not_woken(connection: redis.Redis) -> None:
    lease = held(connection, A, B)
    take(connection, C, B)
    leases.leave(connection, "c")
    leases.release(connection, lease)
    assert not keys(connection, "ptzmesh:wake:*")


def test_waiting_costs_no_more_than_one_command_a_source_each_second(
    redis_url: str, connection: redis.Redis
) -> None:
    held(connection, A, B, ttl_s=600)
    stop = threading.Event()

    def wait_for_b(number: int) -> None:
        own = server.connect(redis_url)
        Turns(own, End(name=f"w{number}"), [B], should_stop=stop.is_set).take()
        own.close()

    with ThreadPoolExecutor(10) as pool:
        for number in range(10):
            pool.submit(wait_for_b, number)
        wait_until(lambda: connection.hlen(keyspace.WAITING) == 10, "all ten wait")
        wait_until(lambda: all_sleep(connection), "nobody asks Redis any more")
        begun = time.monotonic()
        with watched(connection) as spent:
            time.sleep(4.0)
        elapsed_s = time.monotonic() - begun
        stop.set()
    assert 0 < spent["blpop"] + spent.get("evalsha", 0) <= elapsed_s * 10


def all_sleep(connection: redis.Redis) -> bool:
    """Tell whether nobody has called for half a second: who keeps order calls again at first."""
    with watched(connection) as spent:
        time.sleep(0.5)
    return not spent.get("evalsha")


def test_scripts_take_less_than_a_millisecond_in_a_mesh_of_many(connection: redis.Redis) -> None:
    """All of 64 targets busy, each on a link, and 200 sources waiting for them."""
    targets = [End(name=f"target-{i}", links={f"link-{i}": 1}) for i in range(64)]
    taken = [held(connection, End(name=f"holder-{i}"), t) for i, t in enumerate(targets)]
    for number in range(200):
        assert take(connection, End(name=f"waiting-{number}"), *targets).lease is None
    acquire_us, release_us = [], []
    for number in range(50):
        connection.config_resetstat()
        take(connection, End(name=f"waiting-{number}"), *targets)
        acquire_us.append(script_us(connection))
    for lease in taken:
        connection.config_resetstat()
        leases.release(connection, lease)
        release_us.append(script_us(connection))
    # Redis may be held up in any of them.
    assert median(acquire_us) < 1000
    assert median(release_us) < 1000


def script_us(connection: redis.Redis) -> float:
    """Give what the one script since `CONFIG RESETSTAT` took."""
    row = connection.info("commandstats")["cmdstat_evalsha"]
    assert row["calls"] == 1
    return float(row["usec_per_call"])


def test_mesh_in_turns_tests_every_pair_once_and_no_node_twice_at_a_time(redis_url: str) -> None:
    count, busy, lock = 6, [0] * 6, threading.Lock()
    tested: list[tuple[int, int]] = []

    def sweep(index: int) -> None:
        own = server.connect(redis_url)
        ends = [End(name=f"n{t}") for t in tournament_order(index, count)]
        turns = Turns(own, End(name=f"n{index}"), ends)
        while (lease := turns.take()) is not None:
            pair = index, int(lease.far[1:])
            with lock:
                for node in pair:
                    busy[node] += 1
                    assert busy[node] == 1
            time.sleep(0.05)
            with lock:
                tested.append(pair)
                for node in pair:
                    busy[node] -= 1
            turns.finish(lease)
        own.close()

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(sweep, range(count)))
    assert sorted(tested) == sorted(permutations(range(count), 2))


def test_turns_name_the_targets_that_are_over_budget_and_go_on(connection: redis.Redis) -> None:
    poor = End(name="b", bytes_per_day=10)
    turns = Turns(connection, A, [poor, C], reserve_bytes=100)
    lease = turns.take()
    assert lease is not None
    assert lease.far == "c"
    assert turns.pop_over_budget() == [("b", "b")]
    turns.finish(lease)
    assert turns.take() is None


def test_source_without_budget_has_no_turn_and_names_all(connection: redis.Redis) -> None:
    turns = Turns(connection, End(name="a", bytes_per_day=1), [B, C], reserve_bytes=100)
    assert turns.take() is None
    assert turns.pop_over_budget() == [("b", "a"), ("c", "a")]
    assert not connection.hgetall(keyspace.WAITING)


def test_source_that_is_stopped_leaves(redis_url: str, connection: redis.Redis) -> None:
    held(connection, A, B)
    stop = threading.Event()
    own = server.connect(redis_url)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Turns(own, C, [B], should_stop=stop.is_set).take)
        wait_until(lambda: bool(connection.hget(keyspace.WAITING, "c")), "c waits")
        stop.set()
        assert waiting.result(LIMIT_S) is None
    own.close()
    assert not connection.hgetall(keyspace.WAITING)
