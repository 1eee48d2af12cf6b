"""Leases on a real server: both ends and every shared link, or nothing."""

from __future__ import annotations

import multiprocessing
import random
import time
from typing import Any

import msgpack
import pytest
import redis
from waiting import wait_until

from integration.holding import A, B, C, held, keys, take
from worker.transfer import leases
from worker.transfer.leases import End, Lease
from worker.wire import keyspace, scripts
from worker.wire.connection import server

pytestmark = pytest.mark.redis

#: Of what a busy machine may take.
LIMIT_S = 60.0


def test_both_ends_are_held_or_neither(connection: redis.Redis) -> None:
    lease = held(connection, A, B)
    assert (lease.near, lease.far) == ("a", "b")
    assert keys(connection) == {b"ptzmesh:lease:a", b"ptzmesh:lease:b"}
    assert take(connection, C, A, B).lease is None
    assert take(connection, C, B).lease is None
    assert take(connection, A, C).lease is None
    assert keys(connection) == {b"ptzmesh:lease:a", b"ptzmesh:lease:b"}


def test_first_far_end_in_order_that_is_free_is_taken(connection: redis.Redis) -> None:
    held(connection, B, End(name="d"))
    assert held(connection, A, B, End(name="d"), C).far == "c"


def test_who_holds_which_node_is_known_by_the_token(connection: redis.Redis) -> None:
    lease = held(connection, A, B)
    assert leases.holds(connection, "b", lease.token)
    assert not leases.holds(connection, "b", "another")
    assert not leases.holds(connection, "c", lease.token)


def test_only_the_token_gives_up_what_it_holds(connection: redis.Redis) -> None:
    lease = held(connection, A, B)
    other = Lease(token=leases.new_token(), near="a", far="b")
    leases.release(connection, other)
    assert not leases.renew(connection, other)
    assert len(keys(connection)) == 2
    leases.release(connection, lease)
    assert not keys(connection)


@pytest.mark.parametrize(
    "junk",
    [
        b"", b"\xc1", b"\x91", b"1", msgpack.packb([]), msgpack.packb({"ends_ms": "x"}),
        msgpack.packb({"ends_ms": 9e15, "lease": 1, "wake": {}, "wanted": []}),
        msgpack.packb({"ends_ms": 9e15, "lease": "l", "wake": "w", "wanted": " "}),
    ],
)  # fmt: skip
def test_what_is_no_entry_of_who_waits_is_removed_and_the_others_are_woken(
    connection: redis.Redis, junk: bytes
) -> None:
    lease = held(connection, A, B)
    assert take(connection, C, B).lease is None
    connection.hset(keyspace.WAITING, mapping=dict.fromkeys(("a", "b", "z"), junk))
    leases.release(connection, lease, spent_bytes=0)
    assert leases.wait(connection, "c", 1.0)
    assert not connection.hkeys(keyspace.WAITING)
    assert not keys(connection)


def test_release_writes_no_key_but_those_that_wake(connection: redis.Redis) -> None:
    """An entry of who waits names a key, and anybody who may write entries might name a locker."""
    lease = held(connection, A, B)
    wanted = f" {keyspace.lease_key('b')} "
    locker = "file_lockers:locker1"
    entry = {"ends_ms": 9e15, "lease": "none", "wake": locker, "wanted": wanted, "later": " "}
    connection.set(locker, "ptz-1")
    connection.hset(keyspace.WAITING, "z", msgpack.packb(entry))
    leases.release(connection, lease, spent_bytes=0)
    assert connection.get(locker) == b"ptz-1"
    assert not connection.hkeys(keyspace.WAITING)


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
    wait_until(lambda: take(connection, b, End(name="d")).lease is not None, "the link is free")


def contend(url: str, number: int, seconds: float, report: Any) -> None:
    """Take and give up leases among eight nodes as fast as possible, marking who is in a test."""
    connection, rng = server.connect(url), random.Random(number)
    names, overlaps, taken = [f"n{i}" for i in range(8)], 0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or taken < 50:
        near, *others = rng.sample(names, 4)
        lease = take(connection, End(name=near), *(End(name=t) for t in others)).lease
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
