"""An RQ worker's registration: RQ makes it once, and the node's heartbeats keep it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from waiting import wait_until

from coordinator.checks.health import missing_workers
from integration.nodes import assert_mesh_measures, workers
from worker.model.names import NodeName
from worker.node.children import RECONNECT
from worker.node.jobqueue import NO_JOB, unblock
from worker.node.rq_worker import QuietWorker
from worker.wire import keyspace, liveness, rq_jobs
from worker.wire.connection import server
from worker.wire.node_record import RQ_WORKERS

pytestmark = pytest.mark.redis


def registration(connection: redis.Redis, worker: QuietWorker) -> tuple[set[str], bool, bool]:
    """The fields of a worker's record, whether it will be forgotten, whether it is registered."""
    record: Any = connection.hgetall(worker.key)
    of_queue: Any = connection.smembers(keyspace.queue_workers_key("x"))
    of_all: Any = connection.smembers(worker.redis_workers_keys)
    is_registered = of_queue == of_all == {worker.key.encode()}
    return {name.decode() for name in record}, connection.ttl(worker.key) > 0, is_registered


def nothing(_: redis.Redis, __: QuietWorker) -> None: ...


def all_data(connection: redis.Redis, _: QuietWorker) -> None:
    connection.flushall()


def all_data_and_then_its_state_was_set(connection: redis.Redis, worker: QuietWorker) -> None:
    connection.flushall()
    worker.set_state("idle")


def record(connection: redis.Redis, worker: QuietWorker) -> None:
    connection.delete(worker.key)


def record_and_then_its_state_was_set(connection: redis.Redis, worker: QuietWorker) -> None:
    connection.delete(worker.key)
    worker.set_state("idle")


def record_while_a_job_runs(connection: redis.Redis, worker: QuietWorker) -> None:
    connection.flushall()
    with connection.pipeline() as pipeline:
        worker.heartbeat(70, pipeline)
        pipeline.hset(worker.key, mapping=worker.serialize())
        pipeline.execute()


def names(connection: redis.Redis, worker: QuietWorker) -> None:
    connection.delete(keyspace.queue_workers_key("x"), worker.redis_workers_keys)


@pytest.mark.parametrize(
    "lost",
    [
        nothing,
        all_data,
        all_data_and_then_its_state_was_set,
        record,
        record_and_then_its_state_was_set,
        record_while_a_job_runs,
        names,
    ],
)
def test_heartbeat_makes_whole_what_redis_may_have_lost(
    connection: redis.Redis, lost: Callable[[redis.Redis, QuietWorker], None]
) -> None:
    worker = QuietWorker(
        ["x"],
        connection=connection,
        name=f"test-{os.getpid()}",
        serializer=rq_jobs.MsgpackSerializer,
    )
    worker.register_birth()  # type: ignore[no-untyped-call]  # untyped in RQ
    fields, *kept = registration(connection, worker)
    assert fields >= set(worker.serialize())
    assert kept == [True, True]
    lost(connection, worker)
    worker.heartbeat()
    fields_after, *kept = registration(connection, worker)
    assert fields_after >= fields
    assert kept == [True, True]
    assert connection.llen(keyspace.queue_key("x")) == 0


@pytest.fixture
def pair(redis_url: str, connection: redis.Redis, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Two nodes, a and b."""
    with workers(redis_url, connection, tmp_path, ["a", "b"]) as started:
        yield started


def rq_worker(connection: redis.Redis, role: str) -> str:
    """The name that the record of node a has of its worker; empty at first."""
    name: Any = connection.hget(keyspace.node_key(NodeName("a")), RQ_WORKERS[role])
    return (name or b"").decode()


def is_kept(connection: redis.Redis) -> bool:
    """Whether the heartbeats of node a keep both workers whole, and no longer than the node."""
    keys = [keyspace.worker_key(rq_worker(connection, role)) for role in RQ_WORKERS]
    ttls: list[Any] = [connection.ttl(key) for key in keys]
    are_whole = all(connection.hexists(key, "birth") for key in keys)
    return are_whole and all(0 < ttl <= liveness.ALIVE_S for ttl in ttls)


def of_all_kinds(connection: redis.Redis) -> None:
    connection.flushall()


def a_record(connection: redis.Redis) -> None:
    connection.delete(keyspace.worker_key(rq_worker(connection, "prober")))


def a_birth_and_a_name(connection: redis.Redis) -> None:
    connection.hdel(keyspace.worker_key(rq_worker(connection, "prober")), "birth")
    connection.delete(keyspace.queue_workers_key(keyspace.serve_queue(NodeName("a"))))


@pytest.mark.long  # over a minute: registrations lapse in half of one
@pytest.mark.usefixtures("pair")
def test_heartbeats_keep_workers_registered_and_have_them_register_again(
    connection: redis.Redis, redis_url: str
) -> None:
    wait_until(lambda: is_kept(connection), "the heartbeats keep the workers of a")
    names = {rq_worker(connection, role) for role in RQ_WORKERS}
    for lose in (of_all_kinds, a_record, a_birth_and_a_name):
        lose(connection)
        wait_until(
            lambda: is_kept(connection) and not missing_workers(connection, [NodeName("a")]),
            f"both workers of a are whole again after {lose.__name__} was lost",
        )
    assert {rq_worker(connection, role) for role in RQ_WORKERS} == names
    assert_mesh_measures(redis_url)


def test_worker_that_waits_connects_again_when_it_is_told_to(
    pair: dict[str, Any], connection: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    wait_until(lambda: bool(rq_worker(connection, "prober")), "a has told of its prober")
    name = rq_worker(connection, "prober")

    def is_there() -> bool:
        listed: Any = connection.client_list()
        return any(one["name"] == name for one in listed)

    wait_until(is_there, "the prober is connected")
    os.kill(int(name.split("-")[-2]), RECONNECT)
    wait_until(lambda: not is_there(), "the connection that has its name is gone")
    assert_mesh_measures(redis_url)
    assert rq_worker(connection, "prober") == name
    log = (tmp_path / "a.log").read_text()
    assert (log.count("starts again"), log.count("away")) == (0, 0)
    children = subprocess.run(["pgrep", "-P", str(pair["a"].pid)], capture_output=True, check=True)
    assert name.split("-")[-2].encode() in children.stdout.split()


def test_connection_that_died_unheard_is_handed_no_job(
    connection: redis.Redis, redis_url: str
) -> None:
    queue, taken = keyspace.queue_key("x"), keyspace.intermediate_key("x")
    handed: list[Any] = []

    def wait(blocked: redis.Redis) -> None:
        handed.append(blocked.blmove(queue, taken, 60))

    def blocked_clients() -> int:
        clients: Any = connection.info("clients")
        return int(clients["blocked_clients"])

    with server.connect(redis_url) as one, server.connect(redis_url) as other:
        threads = [threading.Thread(target=wait, args=(dead,)) for dead in (one, other)]
        for thread in threads:
            thread.start()
        wait_until(lambda: blocked_clients() == 2, "both wait in Redis")
        unblock(connection, "x")
        for thread in threads:
            thread.join(30)
    assert handed == [NO_JOB.encode()] * 2
    assert (connection.llen(queue), connection.llen(taken)) == (0, 0)
