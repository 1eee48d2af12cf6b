"""What heartbeats say, in how many bytes, and what becomes of a record that somebody changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from waiting import wait_until

from worker.model.names import NodeName
from worker.model.policy import Policy
from worker.node.registration.heartbeats import FIELDS
from worker.node.registration.instance import Instance, Other
from worker.node.settings import NodeSettings
from worker.node.supervisor import Supervisor
from worker.wire import keyspace, liveness, scripts
from worker.wire.connection import server

pytestmark = pytest.mark.redis

NODE = keyspace.node_key(NodeName("a"))


@pytest.fixture
def agent(redis_url: str, connection: redis.Redis, tmp_path: Path) -> Supervisor:
    """A node that may register."""
    settings = NodeSettings(
        name=NodeName("a"),
        redis_url=redis_url,
        address="127.0.0.1",
        labels={},
        state_dir=tmp_path,
        version="0",
        policy=Policy(),
    )
    made = Supervisor(settings, lambda _: {})
    made.heartbeats.instance = Instance(token="a", file="")  # noqa: S106 - of a name
    made.record = made._describe(connection)
    return made


def test_rate_of_commands_is_of_a_heartbeats_time_however_soon_the_next_one_follows(
    agent: Supervisor, connection: redis.Redis
) -> None:
    def told() -> bytes | None:
        agent.heartbeats.register(connection, agent.record)
        return connection.hget(NODE, "redis_commands_per_s")  # type: ignore[return-value]  # redis-py's is for asyncio, too

    began = time.monotonic()
    assert told() == b""
    for _ in range(200):
        connection.ping()
    # A heartbeat that had to wait for Redis is followed by the next at once.
    assert told() == b""
    agent.heartbeats.counted_at -= liveness.HEARTBEAT_S
    rate = float(told() or 0)
    longest_s = liveness.HEARTBEAT_S + time.monotonic() - began  # on a busy machine
    assert 200 / longest_s < rate < 300 / liveness.HEARTBEAT_S
    assert float(told() or 0) == rate


def received(watcher: redis.Redis) -> tuple[int, int]:
    """The bytes and the packets that the server has read, this question's included."""
    stats: Any = watcher.info("stats")
    return stats["total_net_input_bytes"], stats["total_reads_processed"]


def test_heartbeat_of_an_idle_node_is_one_small_packet(
    agent: Supervisor, connection: redis.Redis, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as watcher:
        agent.heartbeats.register(connection, agent.record)
        assert agent.heartbeats.send(connection, agent.record) == []  # has the script loaded
        received(watcher)
        first, second = received(watcher), received(watcher)
        for _ in range(3):
            assert agent.heartbeats.send(connection, agent.record) == []
        last = received(watcher)
    asked = [two - one for one, two in zip(first, second, strict=True)]
    sent = [two - one - own for one, two, own in zip(second, last, asked, strict=True)]
    assert sent[0] / 3 <= 140
    assert sent[1] == 3


def emptied(connection: redis.Redis) -> None:
    connection.flushall()


def field_gone(connection: redis.Redis) -> None:
    connection.hdel(NODE, "links")


def field_changed(connection: redis.Redis) -> None:
    connection.hset(NODE, "bytes_per_day", "1")


def owner_gone(connection: redis.Redis) -> None:
    connection.hdel(NODE, "owner")


@pytest.mark.parametrize("change", [emptied, field_gone, field_changed, owner_gone])
def test_record_that_is_not_as_it_was_left_is_whole_again_with_the_next_heartbeat(
    agent: Supervisor, connection: redis.Redis, change: Callable[[redis.Redis], None]
) -> None:
    agent.heartbeats.register(connection, agent.record)
    agent.heartbeats.send(connection, agent.record)
    before: Any = connection.hgetall(NODE)
    change(connection)
    heard = scripts.redis_seconds(connection)
    assert agent.heartbeats.send(connection, agent.record) == []
    after: Any = connection.hgetall(NODE)
    steady = [field.encode() for field in FIELDS if not field.startswith(("clock", "redis_"))]
    assert [after[field] for field in steady] == [before[field] for field in steady]
    assert connection.zscore(keyspace.NODES, "a") >= heard  # type: ignore[operator]  # it is there
    assert connection.ttl(NODE) > 0


def test_what_changes_is_in_the_record_and_the_rest_stays(
    agent: Supervisor, connection: redis.Redis
) -> None:
    agent.heartbeats.register(connection, agent.record)
    for labels in ({"site": "roof"}, {"site": "cellar"}, {}):
        changed = replace(agent.record, labels=labels)
        assert agent.heartbeats.send(connection, changed) == []
        fields: Any = connection.hgetall(NODE)
        assert fields[b"labels"].decode() == changed.to_fields()["labels"]
        assert fields[b"address"] == b"127.0.0.1"


def test_heartbeat_whose_answer_was_lost_is_followed_by_a_whole_one(
    agent: Supervisor, connection: redis.Redis, redis_url: str
) -> None:
    agent.heartbeats.register(connection, agent.record)
    nowhere = server.connect(f"{redis_url}.not-there", retries=0)
    with nowhere, pytest.raises(redis.ConnectionError):
        agent.heartbeats.send(nowhere, agent.record)
    changed = replace(agent.record, labels={"site": "roof"})
    assert agent.heartbeats.send(connection, changed) == []
    assert agent.heartbeats.send(connection, changed) == []
    assert connection.hget(NODE, "labels") == b'{"site": "roof"}'


def test_who_lost_its_name_is_told_with_a_small_heartbeat_as_well(
    agent: Supervisor, connection: redis.Redis
) -> None:
    agent.heartbeats.register(connection, agent.record)
    agent.heartbeats.send(connection, agent.record)
    connection.hset(NODE, mapping={"owner": "b", "instance": "b", "host": "elsewhere"})
    answer = agent.heartbeats.send(connection, agent.record)
    assert isinstance(answer, Other)
    assert (answer.word, answer.host) == ("taken", "elsewhere")


def test_heartbeat_says_on_which_queues_a_job_lies(
    agent: Supervisor, connection: redis.Redis
) -> None:
    agent.heartbeats.register(connection, agent.record)
    assert agent.heartbeats.waiting == set()
    connection.rpush(keyspace.queue_key(keyspace.serve_queue(NodeName("a"))), "job")
    assert agent.heartbeats.send(connection, agent.record) == []
    assert agent.heartbeats.waiting == {"responder"}


def test_what_else_lies_at_keys_of_rq_keeps_no_node_from_being_heard(
    agent: Supervisor, connection: redis.Redis
) -> None:
    queue, worker = keyspace.serve_queue(NodeName("a")), keyspace.worker_key("one")
    agent.heartbeats.workers = {"responder": lambda: "one"}
    connection.hset(worker, "birth", "now")
    connection.set(keyspace.queue_key(queue), "no list")
    connection.set(keyspace.queue_workers_key(queue), "no set")
    agent.heartbeats.register(connection, agent.record)

    def is_lost() -> bool:
        assert agent.heartbeats.send(connection, agent.record) == []
        assert agent.heartbeats.waiting == set()
        return agent.heartbeats.lost == {"responder"}

    wait_until(is_lost, "the worker is not where it is looked for", every_s=0.5)
    connection.delete(keyspace.queue_workers_key(queue))
    connection.sadd(keyspace.queue_workers_key(queue), worker)
    connection.set(worker, "no record")
    wait_until(is_lost, "the worker's record is none", every_s=0.5)
    connection.delete(worker)
    assert is_lost()


def test_overdue_run_is_told_once(agent: Supervisor, connection: redis.Redis) -> None:
    agent.heartbeats.register(connection, agent.record)
    connection.zadd(keyspace.RUNS_OPEN, {"late": 1.0})
    assert agent.heartbeats.send(connection, agent.record) == ["late"]
    assert agent.heartbeats.send(connection, agent.record) == []
