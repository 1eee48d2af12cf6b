"""An RQ worker's registration, which RQ itself makes once and then only refreshes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import redis

from worker.node.rq_worker import QuietWorker
from worker.wire import keyspace, rq_jobs

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
def test_heartbeat_makes_whole_what_redis_has_lost(
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
