"""A job begins with what its worker has: its record, which came with its id, and a connection."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from counting_proxy import counting_proxy
from waiting import wait_until

from coordinator import Mesh
from integration.nodes import workers
from worker.node.allowlist import allow_listed
from worker.node.jobqueue import guarded_queue
from worker.node.refusals import Refusals
from worker.node.registration.signs import Signs
from worker.wire import keyspace, rq_jobs, scripts
from worker.wire.connection import server
from worker.wire.connection.way import LONG_WAY_S

pytestmark = pytest.mark.redis


def do_nothing(run: str) -> None:
    """Do nothing."""


def enqueue(connection: redis.Redis, queue: str, job_id: str, run: str = "r", **more: Any) -> None:
    job = rq_jobs.enqueuing(queue, keyspace.ADVANCE, {"run": run, **more}, job_id=job_id)
    rq_jobs.carry_out(connection, job)


def by_a_child(do: Callable[[], Any]) -> str:
    """Return what a process that is forked now makes of it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, str(do()).encode())
        finally:
            os._exit(0)
    os.close(write)
    said = os.read(read, 1000).decode()
    os.close(read)
    os.waitpid(child, 0)
    return said


def test_open_connection_is_passed_on_and_the_parent_makes_another(redis_url: str) -> None:
    with server.connect(redis_url, socket_timeout_s=90) as parents:
        first = parents.client_id()
        passed_on = server.pass_on(parents)

        def go_on() -> str:
            mine = server.connect(redis_url)
            server.take_over(mine, passed_on, 7)
            return f"{mine.client_id()} {passed_on[0]._sock.gettimeout():g}"

        assert by_a_child(go_on) == f"{first} 7"
        server.let_go(passed_on)
        second = parents.client_id()
        assert second != first
        assert parents.client_id() == second


def test_connection_that_the_parent_lets_go_first_goes_on(redis_url: str) -> None:
    with server.connect(redis_url) as parents:
        first = parents.client_id()
        passed_on = server.pass_on(parents)
        read, write = os.pipe()

        def go_on() -> int:
            os.read(read, 1)
            mine = server.connect(redis_url)
            server.take_over(mine, passed_on, 7)
            return mine.client_id()

        closing = threading.Timer(0.1, lambda: (server.let_go(passed_on), os.write(write, b"x")))
        closing.start()
        assert by_a_child(go_on) == str(first)
        closing.join()
        os.close(read)
        os.close(write)


def test_nothing_is_passed_on_of_what_is_not_open(redis_url: str) -> None:
    with server.connect(redis_url) as connection:
        assert server.pass_on(connection) == []


@pytest.mark.parametrize("left", [[], ["of-one-that-died"]])
@pytest.mark.parametrize("is_loaded", [True, False])
def test_record_comes_with_the_id(
    redis_url: str, connection: redis.Redis, left: list[str], is_loaded: bool
) -> None:
    connection.script_flush()
    if is_loaded:
        scripts.load(connection, [(("job_record",), "")])
    if left:
        enqueue(connection, "other", left[0], "other")
        connection.rpush(keyspace.intermediate_key("q"), *left)
    enqueue(connection, "q", "one", "mine")
    with counting_proxy(redis_url) as proxy, server.connect(proxy.url) as far:
        far.ping()
        proxy.trips = 0
        queues = guarded_queue(Refusals("n"), Signs())
        jobs = allow_listed({keyspace.ADVANCE: do_nothing})
        how: Any = {"job_class": jobs, "serializer": rq_jobs.MsgpackSerializer}
        queue = queues("q", connection=far, **how)
        # RQ asks a server once for its version.
        found = queues.dequeue_any([queue], 5, connection=far, **how)
        assert found is not None
        job, _ = found
        assert (job.id, job.kwargs) == ("one", {"run": "mine"})
        assert proxy.trips == (2 if is_loaded else 4)
        # Read again it is read anew.
        connection.delete(keyspace.job_key("one"))
        assert queues._fetch_dequeued_job(far, queue.key, "one", **how) is None


@pytest.mark.parametrize("is_long", [pytest.param(False, marks=pytest.mark.long), True])
def test_worker_behind_a_long_way_waits_on_another_connection_after_each_job(
    redis_url: str, connection: redis.Redis, tmp_path: Path, is_long: bool
) -> None:
    def waiting() -> set[str]:
        clients: Any = connection.client_list()
        return {one["id"] for one in clients if "b" in one["flags"]}

    def are_all() -> bool:
        return len(waiting()) == 4

    hold_s = 1.5 * LONG_WAY_S if is_long else 0.0
    with (
        counting_proxy(redis_url, hold_s) as proxy,
        workers(proxy.url, connection, tmp_path, ["a", "b"]),
    ):
        for _ in range(2):
            wait_until(are_all, "all workers wait for jobs")
            before = waiting()
            run = Mesh(redis_url).run(probes=("redis",), count=1, join=False).wait()
            assert [one.outcome.value for one in run.measurements()] == ["ok"] * 2
            wait_until(are_all, "all workers wait again")
            wait_until(lambda: state(connection, "prober") == "idle", "the prober is idle")
            assert len(waiting() - before) == (2 if is_long else 0)


def test_worker_is_idle_after_a_job_that_failed(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    with workers(redis_url, connection, tmp_path, ["a"]):
        row: Any = {"run": "r", "phase": 0, "performer": 0}
        connection.hset(keyspace.run_key("r"), "plan", b"no plan")
        job = rq_jobs.enqueuing(keyspace.node_queue("a"), keyspace.SWEEP, row, job_id="one")
        rq_jobs.carry_out(connection, job)
        status = "status"
        wait_until(
            lambda: connection.hget(keyspace.job_key("one"), status) == b"failed", "it failed"
        )
        wait_until(lambda: state(connection, "prober") == "idle", "the prober is idle")


def state(connection: redis.Redis, role: str) -> str:
    (key,) = connection.scan_iter(f"rq:worker:ptzmesh-a-{role}-*")
    value: Any = connection.hget(key, "state")
    return str(value.decode())
