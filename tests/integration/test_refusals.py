"""A Redis on which a mesh cannot live is refused in one line, before anything is enqueued."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from coordinator.embedded import EmbeddedServer
from integration.nodes import cli
from worker.model import version
from worker.wire import keyspace, scripts

pytestmark = pytest.mark.redis


@pytest.fixture
def server(redis_server: EmbeddedServer) -> Iterator[tuple[str, redis.Redis]]:
    """A server with one node that looks alive, and a connection of its operator."""
    connection = redis.Redis.from_url(redis_server.url)
    now = scripts.redis_seconds(connection)
    record = {"address": "127.0.0.1", "icmp": "raw", "wire": version.WIRE_VERSION}
    connection.zadd(keyspace.NODES, {"a": now, "b": now})
    for name in ("a", "b"):
        connection.hset(keyspace.node_key(name), mapping=record)
    yield redis_server.url, connection
    connection.close()


def refused(url: str, word: str) -> None:
    done = cli(url, "run")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 3, done.stderr
    assert len(errors) == 1
    assert word in errors[0]


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl"])
def test_eviction_that_may_take_lockers_is_refused(
    server: tuple[str, redis.Redis], policy: str
) -> None:
    url, operator = server
    operator.config_set("maxmemory-policy", policy)
    refused(url, "set it to noeviction")
    assert not operator.exists(keyspace.RUNS)


def test_full_redis_is_told_and_nothing_is_left_behind(server: tuple[str, redis.Redis]) -> None:
    url, operator = server
    operator.config_set("maxmemory", 1)
    refused(url, "raise its maxmemory")
    assert not operator.exists(keyspace.RUNS, keyspace.RUNS_OPEN)


def test_missing_and_wrong_passwords_are_told(server: tuple[str, redis.Redis]) -> None:
    url, operator = server
    operator.config_set("requirepass", "right")
    refused(url, "PTZMESH_REDIS_PASSWORD_FILE")
    refused(url.replace("unix://", "unix://:wrong@"), "PTZMESH_REDIS_PASSWORD_FILE")
    assert ":wrong@" not in cli(url.replace("unix://", "unix://:wrong@"), "nodes").stderr


def test_no_redis_is_told() -> None:
    refused("redis://127.0.0.1:1", "does not answer")
