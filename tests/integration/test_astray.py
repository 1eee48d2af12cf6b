"""A request that Redis gives to a connection of a node that is no longer there."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import redis

from integration.nodes import cli, eventually, workers
from worker import keyspace, wire
from worker.probes.icmp import icmp_capability
from worker.probes.iperf3 import find_iperf3

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping"),
    pytest.mark.skipif(find_iperf3() is None, reason="no iperf3"),
]


def test_a_request_that_went_astray_is_sent_again(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    # As Redis sees it, the old connection of a node that was cut off in silence: it is blocked on
    # the node's queue, longer than the new one, and what it is given nobody reads.
    left_over = wire.connect(redis_url, socket_timeout_s=300)
    taken: list[object] = []
    queue = keyspace.queue_key(keyspace.serve_queue("b"))
    thread = threading.Thread(target=lambda: taken.append(left_over.blpop([queue], timeout=240)))
    thread.start()
    try:
        eventually(lambda: bool(connection.info("clients")["blocked_clients"]), "it is blocked")
        with workers(redis_url, connection, tmp_path, ["a", "b"]):
            options = ["--from", "a", "--to", "b", "--probe", "throughput", "--duration", "1"]
            said = cli(redis_url, "run", "--json", *options)
    finally:
        connection.rpush(queue, "end")
        thread.join()
    assert said.returncode == 0, said.stderr
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    assert [row["outcome"] for row in rows if "outcome" in row] == ["ok"]
    assert taken != [(queue.encode(), b"end")]
    assert b"went astray" in (tmp_path / "a.log").read_bytes()
