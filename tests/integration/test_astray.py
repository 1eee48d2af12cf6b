"""Requests of tests that a link or Redis which was away has lost, delayed or sent twice."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from pathlib import Path

import pytest
import redis
from waiting import wait_until

from integration.nodes import cli, workers
from worker.probes.icmp.engine import icmp_capability
from worker.probes.iperf3.tool import find_iperf3
from worker.transfer import leases
from worker.transfer.answer import Request
from worker.wire import keyspace, rq_jobs
from worker.wire.connection import server

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping"),
    pytest.mark.skipif(bool(find_iperf3().fault), reason="no iperf3"),
]


def test_a_request_that_comes_late_or_twice_is_no_intruder(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    queue = keyspace.queue_key(keyspace.serve_queue("b"))
    with workers(redis_url, connection, tmp_path, ["a", "b"]):
        options = ["--from", "a", "--to", "b", "--probe", "throughput", "--duration", "1"]
        run = json.loads(cli(redis_url, "run", "--json", *options).stdout.splitlines()[0])["run"]
        late = Request(
            run=run,
            phase=0,
            performer=0,
            token=f"{leases.new_token()}.0",  # its lease has lapsed meanwhile
            number=0,
            family=4,
            idle_rtt_ms=None,
        )
        pipeline = connection.pipeline()
        name = keyspace.serve_queue("b")
        rq_jobs.enqueue(connection, pipeline, name, keyspace.SERVE, asdict(late), job_id="late")
        pipeline.execute()
        connection.rpush(queue, "late")  # and once more
        said = b"is no longer wanted: its lease is over"
        log = tmp_path / "b.log"
        wait_until(lambda: said in log.read_bytes(), "it is told")
        wait_until(lambda: not connection.llen(queue), "both are taken")
        found = [json.loads(x) for x in cli(redis_url, "doctor", "--json").stdout.splitlines()]
    assert not connection.exists(keyspace.REFUSED)
    assert [x["message"] for x in found if x["check"] == "refused jobs"] == ["none"]


def test_a_request_that_went_astray_is_sent_again(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    # As Redis sees it, old connections of a node that was cut off in silence: they are blocked on
    # the node's queue, longer than the new one, and what they are given nobody reads. The first
    # gets the question whether b is behind a proxy.
    taken: list[object] = []
    queue = keyspace.queue_key(keyspace.serve_queue("b"))

    def wait() -> None:
        with server.connect(redis_url, socket_timeout_s=300) as left_over:
            taken.append(left_over.blpop([queue], timeout=240))

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: connection.info("clients")["blocked_clients"] == 2, "both are blocked")
        with workers(redis_url, connection, tmp_path, ["a", "b"]):
            options = ["--from", "a", "--to", "b", "--probe", "throughput", "--duration", "1"]
            said = cli(redis_url, "run", "--json", *options)
    finally:
        connection.rpush(queue, "end", "end")
        for thread in threads:
            thread.join()
    assert said.returncode == 0, said.stderr
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    assert [row["outcome"] for row in rows if "outcome" in row] == ["ok"]
    assert (queue.encode(), b"end") not in taken
    assert b"went astray" in (tmp_path / "a.log").read_bytes()
