"""What we enqueue without RQ is what RQ enqueues, and RQ reads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue
from rq.job import Job, JobStatus

from worker.wire import keyspace, rq_jobs, scripts

pytestmark = pytest.mark.redis

TIMES = {"created_at", "enqueued_at"}
ARGUMENTS: dict[str, Any] = {"run": "r", "phase": 0, "performer": 300, "idle_rtt_ms": None}
CASES: list[dict[str, Any]] = [
    {"job_id": "one"},
    {"job_id": "one", "timeout_s": 86400, "at_front": True},
]


def by_rq(connection: redis.Redis, job_id: str, timeout_s: int = 60, at_front: bool = False) -> Any:
    """Return what is on a pipeline on which RQ has enqueued a job."""
    pipeline: Any = connection.pipeline()
    queue = Queue("q", connection=connection, serializer=rq_jobs.MsgpackSerializer)
    queue.enqueue_call(
        keyspace.SWEEP,
        kwargs=ARGUMENTS,
        job_id=job_id,
        timeout=timeout_s,
        result_ttl=0,
        failure_ttl=rq_jobs.JOB_TTL_S,
        description=keyspace.SWEEP,
        pipeline=pipeline,
        at_front=at_front,
    )
    return pipeline


def enqueuing(**more: Any) -> list[rq_jobs.Command]:
    return rq_jobs.enqueuing("q", keyspace.SWEEP, ARGUMENTS, **more)


def all_keys(connection: redis.Redis) -> dict[str, Any]:
    """Read what a server has, but for the times of a job's record."""
    read: dict[bytes, Any] = {
        b"set": connection.smembers,
        b"list": lambda key: connection.lrange(key, 0, -1),
        b"hash": lambda key: without_times(connection.hgetall(key)),
    }
    keys: Any = connection.keys()
    found = {key.decode(): read[connection.type(key)](key) for key in keys}
    assert all(connection.ttl(key) == -1 for key in keys)
    return found


def without_times(record: Any) -> dict[str, bytes]:
    assert {name.decode() for name in record} >= TIMES
    return {name.decode(): value for name, value in record.items() if name.decode() not in TIMES}


@pytest.mark.parametrize("how", CASES)
def test_a_job_is_enqueued_as_by_rq(connection: redis.Redis, how: dict[str, Any]) -> None:
    connection.rpush(keyspace.queue_key("q"), "waits")
    by_rq(connection, **how).execute()
    theirs = all_keys(connection)
    connection.flushdb()
    connection.rpush(keyspace.queue_key("q"), "waits")
    rq_jobs.carry_out(connection, enqueuing(**how))
    ours = all_keys(connection)
    key = keyspace.job_key("one")
    # What RQ says of callbacks and groups, which no job of ours has, is empty.
    said = {name: value for name, value in theirs[key].items() if value or name in ours[key]}
    assert ours == theirs | {key: said}
    assert ours[key].keys() | TIMES == rq_jobs.JOB_FIELDS


@pytest.mark.parametrize("how", CASES)
def test_its_commands_are_those_of_rq(connection: redis.Redis, how: dict[str, Any]) -> None:
    theirs = [words for words, _ in by_rq(connection, **how).command_stack]
    # RQ writes the status by itself, and once more with the record.
    status = ("HSET", keyspace.job_key("one"), "status", JobStatus.QUEUED)
    assert theirs.count(status) == 1
    theirs.remove(status)
    ours = enqueuing(**how)
    assert [words[:2] for words in ours] == [words[:2] for words in theirs]
    assert (ours[0], ours[2]) == (theirs[0], theirs[2])


@pytest.mark.parametrize("how", CASES)
def test_a_script_carries_out_what_a_transaction_does(
    connection: redis.Redis, how: dict[str, Any]
) -> None:
    rq_jobs.carry_out(connection, enqueuing(**how))
    by_transaction = all_keys(connection)
    connection.flushdb()
    scripts.script(connection, "commands", "enqueue")([], rq_jobs.words_of(enqueuing(**how)))
    assert all_keys(connection) == by_transaction


def test_rq_reads_a_job_of_ours(connection: redis.Redis, redis_url: str) -> None:
    queue = Queue("q", connection=connection, serializer=rq_jobs.MsgpackSerializer)
    for at_front in (False, False, True):
        rq_jobs.carry_out(connection, enqueuing(at_front=at_front))
    jobs = queue.jobs
    assert len({job.id for job in jobs}) == len(queue) == 3
    assert jobs[0].created_at >= jobs[2].created_at >= jobs[1].created_at
    job = Job.fetch(jobs[0].id, connection, serializer=rq_jobs.MsgpackSerializer)
    assert (job.func_name, job.args, job.kwargs) == (keyspace.SWEEP, [], ARGUMENTS)
    assert (job.origin, job.get_status(), job.timeout) == ("q", JobStatus.QUEUED, 60)
    assert (job.result_ttl, job.failure_ttl, job.ttl) == (0, rq_jobs.JOB_TTL_S, None)
    assert job.created_at == job.enqueued_at
    rq = Path(sys.executable).with_name("rq")
    done = subprocess.run(
        [rq, "info", "--raw", "--url", redis_url], capture_output=True, text=True, timeout=120
    )
    assert "queue q 3" in done.stdout, done.stderr
