"""What a node's heartbeats say, also when one follows another at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis

from worker.model.policy import Policy
from worker.node.registration.instance import Instance
from worker.node.settings import NodeSettings
from worker.node.supervisor import Supervisor
from worker.wire import keyspace, liveness

pytestmark = pytest.mark.redis


def test_rate_of_commands_is_of_a_heartbeats_time_however_soon_the_next_one_follows(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    settings = NodeSettings(
        name="a",
        redis_url=redis_url,
        address="127.0.0.1",
        labels={},
        state_dir=tmp_path,
        version="0",
        policy=Policy(),
    )
    agent = Supervisor(settings, lambda _: {})
    agent.heartbeats.instance = Instance(token="a", file="")  # noqa: S106 - of a name
    agent.record = agent._describe(connection)

    def told() -> bytes | None:
        agent.heartbeats.register(connection, agent.record)
        return connection.hget(keyspace.node_key("a"), "redis_commands_per_s")  # type: ignore[return-value]  # redis-py's is for asyncio, too

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
