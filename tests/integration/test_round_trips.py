"""How many round trips each command takes one after the other: on a long way, its time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from counting_proxy import CountingProxy, counting_proxy

from coordinator.embedded import EmbeddedServer, embedded_server
from coordinator.runs.advance import cancel
from coordinator.runs.follow import follow_run
from integration.causes import World
from integration.nodes import cli
from worker.model.errors import RedisUnavailable
from worker.model.names import RunId
from worker.wire import keyspace
from worker.wire.connection import command_count, server
from worker.wire.connection.handshake import Terms

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def guarded(
    server_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """A server that wants a password."""
    folder = tmp_path_factory.mktemp("trips")
    with embedded_server(folder, binary=server_binary, unix=False) as made:
        yield made


@pytest.fixture
def proxy(guarded: EmbeddedServer) -> Iterator[CountingProxy]:
    """The way to it, empty."""
    with redis.Redis.from_url(guarded.url) as owner:
        owner.flushall()
    with counting_proxy(guarded.url) as made:
        yield made


def test_greeting_goes_with_what_only_looks_and_before_what_writes(proxy: CountingProxy) -> None:
    with server.connect(proxy.url) as connection:
        connection.get("x")
        assert proxy.trips == 2
    with server.connect(proxy.url) as connection:
        connection.set("x", 1)
        assert proxy.trips == 2 + 3


def test_whoever_is_refused_has_written_nothing(
    guarded: EmbeddedServer, proxy: CountingProxy
) -> None:
    url = proxy.url.removesuffix("/0") + "/99"
    for look in (False, True):
        with server.connect(url) as connection:
            pipeline = connection.pipeline(transaction=False).get("x")
            pipeline.get("y") if look else pipeline.set("x", "in database 0")
            with pytest.raises(redis.ResponseError, match="out of range"):
                pipeline.execute()
    assert proxy.trips == 4
    with redis.Redis.from_url(guarded.url) as owner:
        assert owner.get("x") is None


def test_a_server_is_judged_with_the_first_command_and_once(proxy: CountingProxy) -> None:
    with server.connect(proxy.url, judged=True) as connection:
        connection.get("x")
        assert proxy.trips == 2
        connection.connection_pool.disconnect()
        connection.get("x")
    assert proxy.trips == 4
    assert [said.count(b"INFO") for said in proxy.said] == [3, 0]


def test_a_server_that_will_not_do_is_refused_by_the_first_command(
    guarded: EmbeddedServer, proxy: CountingProxy
) -> None:
    with redis.Redis.from_url(guarded.url) as owner:
        owner.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with server.connect(proxy.url, judged=True) as connection:
                for _ in range(2):
                    with pytest.raises(RedisUnavailable, match="may evict lockers"):
                        connection.set("x", 1)
            assert owner.get("x") is None
        finally:
            owner.config_set("maxmemory-policy", "noeviction")


def test_who_is_interrupted_as_it_judges_a_server_leaves_no_answer_to_be_read(
    guarded: EmbeddedServer,
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    terms = Terms(interrupted, lambda exc: exc)
    with command_count.counted(guarded.url, terms=terms) as connection:
        with pytest.raises(KeyboardInterrupt):
            connection.get("x")
        pool: Any = connection.connection_pool
        assert [link._sock for link in pool._available_connections] == [None]


def test_an_answer_that_nobody_has_read_is_not_taken_for_the_next(guarded: EmbeddedServer) -> None:
    with server.connect(guarded.url) as connection:
        connection.mset({"a": "of a", "b": "of b"})
        pool: Any = connection.connection_pool
        pool.disconnect()
        link = pool.get_connection()
        link.send_command("GET", "a")
        pool.release(link)
        assert connection.get("b") == b"of b"


@pytest.fixture
def world(guarded: EmbeddedServer, proxy: CountingProxy, tmp_path: Path) -> Iterator[World]:
    """A mesh there, which is prepared beside the proxy."""
    with server.connect(guarded.url) as connection:
        yield World(guarded.url, connection, tmp_path)


def test_each_command_that_looks_takes_so_many(proxy: CountingProxy, world: World) -> None:
    world.nodes()
    world.run()
    for number in range(3):
        world.connection.xadd(keyspace.RESULTS, {"probe": f"of another program {number}"})
    took = {}
    for command in ("nodes", "runs", "show last", "collect --list", "run --detach --new"):
        before = proxy.trips
        said = cli(proxy.url, *command.split())
        assert said.returncode == 0, said.stderr
        took[command] = proxy.trips - before
    assert took == {
        "nodes": 3,
        "runs": 3,
        "show last": 4,
        "collect --list": 2,
        "run --detach --new": 4,
    }


def test_following_takes_one_for_what_arrived_and_how_the_run_stands(
    guarded: EmbeddedServer, proxy: CountingProxy, world: World
) -> None:
    run = world.run()
    cancel(world.connection, RunId(run))
    with server.connect(proxy.url) as connection:
        (update,) = follow_run(connection, RunId(run))
    assert (len(update.arrived), update.run.is_open) == (2, False)
    assert proxy.trips == 1 + 2


def test_a_server_that_has_lost_its_scripts_costs_one_each(
    proxy: CountingProxy, world: World
) -> None:
    world.nodes()
    world.connection.script_flush()
    said = cli(proxy.url, "run", "--detach")
    assert said.returncode == 0, said.stderr
    assert proxy.trips == 4 + 2
