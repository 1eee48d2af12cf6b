"""Turns on a real server: waiting is prompt and cheap, and a mesh in turns tests every pair."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import permutations
from statistics import median

import msgpack
import pytest
import redis
from waiting import wait_until

from integration.holding import A, B, C, held, keys, take
from worker.model.tournament import tournament_order
from worker.transfer import leases
from worker.transfer.leases import End
from worker.transfer.turns import Order, Turns
from worker.wire import keyspace, scripts
from worker.wire.connection import server

pytestmark = pytest.mark.redis

LIMIT_S = 60.0
#: A delay is that of the quickest of so many: whatever else runs here may hold up any of them.
TRIES = 30


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


def test_who_held_a_node_hears_that_it_wants_to_test_back(connection: redis.Redis) -> None:
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


def test_turns_name_the_far_ends_that_are_over_budget_and_go_on(connection: redis.Redis) -> None:
    poor = End(name="b", bytes_per_day=10)
    turns = Turns(connection, A, [poor, C], reserve_bytes=100)
    lease = turns.take()
    assert lease is not None
    assert lease.far == "c"
    assert turns.pop_over_budget() == [("b", "b")]
    turns.finish(lease)
    assert turns.take() is None


def test_near_without_budget_has_no_turn_and_names_all(connection: redis.Redis) -> None:
    turns = Turns(connection, End(name="a", bytes_per_day=1), [B, C], reserve_bytes=100)
    assert turns.take() is None
    assert turns.pop_over_budget() == [("b", "a"), ("c", "a")]
    assert not connection.hgetall(keyspace.WAITING)


def test_near_that_is_stopped_leaves(redis_url: str, connection: redis.Redis) -> None:
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


def test_waiting_costs_no_more_than_one_command_a_node_each_second(
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


def test_scripts_cost_little_in_a_mesh_of_many(connection: redis.Redis) -> None:
    """All of 64 far ends busy, each on a link, and 200 nodes waiting for them."""
    others = [End(name=f"far-{i}", links={f"link-{i}": 1}) for i in range(64)]
    taken = [held(connection, End(name=f"holder-{i}"), t) for i, t in enumerate(others)]
    for number in range(200):
        assert take(connection, End(name=f"waiting-{number}"), *others).lease is None
    plain = connection.script_load(PLAIN)
    leases.release(connection, held(connection, End(name="x"), End(name="y")))  # loads the script
    acquire, release, in_vain = [], [], []

    def over_plain(run: Callable[[], object]) -> float:
        """Take turns, as the machine may be slow for a while."""
        spent_us = []
        for one in (partial(connection.evalsha, plain, 0), run):
            connection.config_resetstat()
            one()
            spent_us.append(script_us(connection))
        return spent_us[1] / spent_us[0]

    for number in range(50):
        waiting = End(name=f"waiting-{number}")
        acquire.append(over_plain(partial(take, connection, waiting, *others)))
    for _ in range(50):
        # Of those that wait nobody wants it, so that as many are looked at as ever are.
        lease = held(connection, End(name="x", links={"x": 1}), End(name="y", links={"y": 1}))
        in_vain.append(over_plain(partial(leases.release, connection, lease)))
    for lease in taken:
        release.append(over_plain(partial(leases.release, connection, lease)))
    # Redis may be held up in any of them.
    assert max(map(median, (acquire, in_vain, release))) < 1.5


#: A thousand plain commands: half a millisecond where the processor is fast.
PLAIN = "for i = 1, 1000 do redis.call('ZSCORE', 'none', i) end"


def script_us(connection: redis.Redis) -> float:
    """Give what the one script since `CONFIG RESETSTAT` took."""
    row = connection.info("commandstats")["cmdstat_evalsha"]
    assert row["calls"] == 1
    return float(row["usec_per_call"])


def test_who_waits_is_noted_by_the_keys_that_python_uses(connection: redis.Redis) -> None:
    held(connection, A, B)
    held(connection, C, End(name="d"))
    cell = End(name="e", links={"cell": 1})
    assert take(connection, cell, B).lease is None
    assert take(connection, A, cell, C).lease is None
    ends_ms = 1000 * (scripts.redis_seconds(connection) + leases.WAITING_TTL_S)
    waiting = {
        node.decode(): msgpack.unpackb(packed)
        for node, packed in connection.hgetall(keyspace.WAITING).items()
    }
    assert set(waiting) == {"e", "a"}
    for node, entry in waiting.items():
        assert entry["lease"] == keyspace.lease_key(node)
        assert entry["wake"] == keyspace.wake_key(node)
        assert 0 <= ends_ms - entry["ends_ms"] < 1000 * LIMIT_S
    lease = keyspace.lease_key
    assert set(waiting["e"]["wanted"].split()) == {
        lease("e"),
        lease("b"),
        keyspace.link_key("cell"),
    }
    assert waiting["e"]["later"].split() == []
    assert waiting["a"]["wanted"].split() == [lease("a")]
    assert waiting["a"]["later"].split() == [lease("e"), lease("c")]
    assert 0 < connection.pttl(keyspace.WAITING) <= 1000 * leases.WAITING_TTL_S


def test_far_end_over_its_budget_does_not_end_the_order(connection: redis.Redis) -> None:
    poor = End(name="b", bytes_per_day=10)
    turns = Turns(connection, A, [poor, C, End(name="d")], reserve_bytes=100)
    with watched(connection) as spent:
        lease = turns.take()
    assert lease is not None
    assert (lease.far, turns.order) == ("c", Order.KEPT)
    assert not {"blpop", "lpop"} & {name for name, count in spent.items() if count}


def test_order_is_given_up_when_the_first_is_not_free_in_time(connection: redis.Redis) -> None:
    held(connection, C, End(name="d"))
    turns = Turns(connection, A, [C, B])
    lease = turns.take()
    assert lease is not None
    assert (lease.far, turns.order) == ("b", Order.GIVEN_UP)
