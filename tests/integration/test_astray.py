"""Requests of tests that a link or Redis which was away has lost, delayed or sent twice."""

from __future__ import annotations

import json
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
        name = keyspace.serve_queue("b")
        job = rq_jobs.enqueuing(name, keyspace.SERVE, asdict(late), job_id="late")
        rq_jobs.carry_out(connection, job)
        connection.rpush(queue, "late")  # and once more
        said = b"is no longer wanted: its lease is over"
        log = tmp_path / "b.log"
        wait_until(lambda: said in log.read_bytes(), "it is told")
        wait_until(lambda: not connection.llen(queue), "both are taken")
        found = [json.loads(x) for x in cli(redis_url, "doctor", "--json").stdout.splitlines()]
    assert not connection.exists(keyspace.REFUSED)
    assert [x["message"] for x in found if x["check"] == "refused jobs"] == ["none"]
