"""Whatever is written to Redis, a worker runs nothing but its own jobs, and goes on with those."""

from __future__ import annotations

import json
import os
import pickle
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import redis
from rq import Queue
from rq.job import Job
from waiting import wait_until

from coordinator import Mesh
from integration.nodes import assert_mesh_measures, workers
from worker.node.refusals import MOST_A_SECOND, MOST_KEPT
from worker.probes.icmp.engine import icmp_capability
from worker.wire import keyspace, rq_jobs

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping"),
]

QUEUE = keyspace.node_queue("a")
GOOD = {"run": "20260102T030405000-abcd", "phase": 0, "performer": 0}


@pytest.fixture(autouse=True)
def _pair(redis_url: str, connection: redis.Redis, tmp_path: Path) -> Iterator[None]:
    """Two nodes, a and b, which both live when the test has ended."""
    with workers(redis_url, connection, tmp_path, ["a", "b"]) as started:
        yield
        assert all(process.poll() is None for process in started.values())


def log_of(folder: Path, name: str = "a") -> str:
    return (folder / f"{name}.log").read_text()


def refused(connection: redis.Redis) -> list[dict[str, str]]:
    entries: Any = connection.lrange(keyspace.REFUSED, 0, -1)
    return [json.loads(entry) for entry in entries]


def payload(name: object = keyspace.SWEEP, args: object = (), kwargs: object = None) -> bytes:
    return zlib.compress(msgpack.packb([name, None, args, GOOD if kwargs is None else kwargs]))


def push(connection: redis.Redis, job_id: str, /, **fields: Any) -> None:
    """Put a job into a's queue: a good one, but for these fields."""
    record: dict[Any, Any] = {
        "data": payload(),
        "origin": QUEUE,
        "timeout": "30",
        "status": "queued",
        "created_at": "2026-01-02T03:04:05.000000Z",
        **fields,
    }
    raw = {os.fsencode(name): value for name, value in record.items()}
    connection.hset(keyspace.job_key(job_id), mapping=raw)  # type: ignore[arg-type]  # bytes are fine
    connection.rpush(keyspace.queue_key(QUEUE), job_id)


def test_job_of_these_tests_is_executed_when_nothing_is_wrong_with_it(
    connection: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    push(connection, "good")
    assert_mesh_measures(redis_url)
    assert refused(connection) == []
    assert "nothing to measure" in log_of(tmp_path)  # it was run: there is no such run


DEEP = b"\x91" * 1000 + b"\xc0"
RECORDS: dict[str, dict[str, Any]] = {
    "another function": {"data": payload("os.system", ["touch /tmp/x"])},
    "no function": {"data": payload(None)},
    "function in a list": {"data": payload([keyspace.SWEEP])},
    "a method's instance": {"data": msgpack.packb([keyspace.SWEEP, "x", [], GOOD])},
    "pickle": {"data": pickle.dumps((keyspace.SWEEP, None, (), GOOD))},
    "compressed pickle": {"data": zlib.compress(pickle.dumps((keyspace.SWEEP, None, (), GOOD)))},
    "nothing": {"data": b""},
    "too long": {"data": payload(kwargs={**GOOD, "run": "x" * rq_jobs.MAX_PAYLOAD_BYTES})},
    "bomb": {"data": zlib.compress(b"\x00" * 40_000_000)},
    "deep": {"data": b"\x94" + msgpack.packb(keyspace.SWEEP) + b"\xc0\x90" + DEEP},
    "very deep": {"data": b"\x91" * 60_000},
    "cut off": {"data": payload()[:-9]},
    "three parts": {"data": msgpack.packb([keyspace.SWEEP, None, []])},
    "arguments without names": {"data": payload(args=["a", 0, 0], kwargs={})},
    "arguments in a list": {"data": payload(kwargs=[1])},
    "unknown argument": {"data": payload(kwargs={**GOOD, "more": 1})},
    "argument 7": {"data": payload(kwargs={**GOOD, 7: 1})},
    "missing argument": {"data": payload(kwargs={"run": "x", "phase": 0})},
    "run is a list": {"data": payload(kwargs={**GOOD, "run": ["x"]})},
    "run is a line break": {"data": payload(kwargs={**GOOD, "run": "a\nb"})},
    "phase is text": {"data": payload(kwargs={**GOOD, "phase": "0"})},
    "phase is true": {"data": payload(kwargs={**GOOD, "phase": True})},
    "phase is negative": {"data": payload(kwargs={**GOOD, "phase": -1})},
    "performer is huge": {"data": payload(kwargs={**GOOD, "performer": 2**63})},
    "timeout x": {"timeout": "x"},
    "timeout 1h": {"timeout": "1h"},
    "timeout of none": {"timeout": ""},
    "timeout of never": {"timeout": "-1"},
    "timeout of zero": {"timeout": "0"},
    "timeout of a year": {"timeout": str(365 * 86400)},
    "timeout beyond alarm(2)": {"timeout": "9" * 400},
    "success callback": {"success_callback_name": "os.abort"},
    "failure callback": {"failure_callback_name": "os.abort"},
    "stopped callback": {"stopped_callback_name": "os.abort"},
    "webhook": {"webhooks": json.dumps([{"url": "http://127.0.0.1:1/", "events": ["finished"]}])},
    "dependency": {"dependency_ids": '["other"]'},
    "old dependency": {"dependency_id": "other"},
    "group": {"group_id": "g"},
    "repeat": {"repeats_left": "5", "repeat_intervals": "[0]"},
    "retry": {"retries_left": "5", "retry_intervals": "[0]"},
    "rate limit": {"rate_limit_key": "x", "rate_limit_concurrency": "1"},
    "meta": {"meta": msgpack.packb({"a": 1})},
    "handler": {"exc_handler": "os.abort"},
    "work-horse-killed handler": {"work_horse_killed_handler": "os.abort"},
    "unknown field": {"more": "1"},
    "field that is no text": {"\udcff": "1"},
    "another queue's": {"origin": "default"},
    "another node's": {"origin": keyspace.node_queue("b")},
    "no queue's": {"origin": ""},
    "ended": {"ended_at": "yesterday"},
    "enqueued": {"enqueued_at": "\u0000"},
    "created": {"created_at": "x" * 400},
    "status": {"status": "no such status"},
    "result ttl": {"result_ttl": "for ever"},
    "bytes": {"description": b"\xff\xfe\xfd", "worker_name": b"\xff"},
    "long": {"description": "x" * 100_000},
    "huge": {"description": "x" * 3_000_000},
}

#: Of these, what a node of another version may ask, and what is left where Redis lost the rest.
OTHER_CALLS = {
    "unknown argument", "missing argument", "run is a list", "run is a line break",
    "phase is text", "phase is true", "phase is negative", "performer is huge",
}  # fmt: skip
CUT = {"nothing", "timeout of none"}


def test_every_odd_record_is_refused_and_noted_and_the_next_job_is_done(
    connection: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    for number, (what, fields) in enumerate(RECORDS.items()):
        push(connection, f"odd-{number}", **fields)
        wait_until(lambda n=number + 1: len(refused(connection)) >= n, what)  # type: ignore[misc]
        time.sleep(1 / MOST_A_SECOND)  # so that each has its line
    found = {entry["job"]: entry for entry in refused(connection)}
    assert set(found) == {f"odd-{number}" for number in range(len(RECORDS))}
    for entry in found.values():
        assert set(entry) == {"time", "node", "job", "reason", "cause"}
        assert entry["node"] == "a"
        assert entry["reason"].isprintable()
        assert 0 < len(entry["reason"]) < 400
    for number, what in enumerate(RECORDS):
        expected = "version" if what in OTHER_CALLS else "damaged" if what in CUT else "foreign"
        assert found[f"odd-{number}"]["cause"] == expected, what
    lines = [line for line in log_of(tmp_path).splitlines() if " refused: " in line]
    assert len(lines) == len(RECORDS)
    assert log_of(tmp_path).count("Traceback") == 0
    assert "nothing to measure" not in log_of(tmp_path)  # none was executed
    assert "starts again" not in log_of(tmp_path)
    assert_mesh_measures(redis_url)
    taken = keyspace.queue_key(QUEUE) + ":intermediate"
    wait_until(lambda: connection.llen(taken) == 0, "nothing is left of it")


ODD_IDS = (b"", b"a b", b"../x", b"\xff\xfe", b"x" * 100_000, b"a:b", b"a\nb", b"*")


def test_odd_job_id_is_refused_and_does_not_come_back(
    connection: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    for number, job_id in enumerate(ODD_IDS):
        connection.rpush(keyspace.queue_key(QUEUE), job_id)
        connection.rpush(keyspace.queue_key(keyspace.serve_queue("a")), job_id)
        both = 2 * (number + 1)
        wait_until(lambda n=both: len(refused(connection)) == n, f"both refuse {job_id[:9]!r}")  # type: ignore[misc]
    assert {entry["reason"] for entry in refused(connection)} == {"the job's id is invalid"}
    taken = keyspace.queue_key(QUEUE) + ":intermediate"
    wait_until(lambda: connection.llen(taken) == 0, "nothing is left of it")
    assert_mesh_measures(redis_url)
    assert "starts again" not in log_of(tmp_path)


def test_record_of_another_type_is_refused(
    connection: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    connection.rpush(keyspace.job_key("list"), "x")
    connection.set(keyspace.job_key("text"), "x")
    connection.rpush(keyspace.queue_key(QUEUE), "list", "text")
    wait_until(lambda: len(refused(connection)) == 2, "both are refused")
    assert {entry["reason"] for entry in refused(connection)} == {
        "the record is a list, not a hash",
        "the record is a string, not a hash",
    }
    assert_mesh_measures(redis_url)
    assert "starts again" not in log_of(tmp_path)


@pytest.mark.parametrize(
    "key",
    [
        keyspace.queue_key(QUEUE),
        keyspace.queue_key(QUEUE) + ":intermediate",
        keyspace.queue_key(keyspace.serve_queue("a")),
        keyspace.queue_key(keyspace.CONTROL_QUEUE),
        f"rq:wip:{QUEUE}",
    ],
)
def test_key_of_rq_of_another_type_is_put_out_of_the_way(
    connection: redis.Redis, redis_url: str, tmp_path: Path, key: str
) -> None:
    pipeline = connection.pipeline(transaction=False)
    if key == keyspace.queue_key(QUEUE):
        pipeline.rpush(key, "gone")  # whoever waits for this key alone comes back
    pipeline.delete(key)
    pipeline.set(key, "not what RQ has there")
    pipeline.execute()

    def fixed() -> bool:
        # The workers wait in Redis, and look at the key's type when they come back.
        for other in (QUEUE, keyspace.serve_queue("a"), keyspace.CONTROL_QUEUE):
            if keyspace.queue_key(other) != key:
                connection.rpush(keyspace.queue_key(other), "gone")
        if key.startswith("rq:wip:") and not connection.exists(keyspace.job_key("good")):
            push(connection, "good")
        return connection.type(key) != b"string"

    wait_until(fixed, "it is fixed")
    assert_mesh_measures(redis_url)
    assert any(key in entry["job"] for entry in refused(connection))
    assert "Traceback" not in log_of(tmp_path), log_of(tmp_path)


def test_flood_is_noted_in_a_bounded_list_a_few_a_second(
    connection: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    record = {"data": payload("os.system"), "origin": QUEUE, "timeout": "30"}
    pipeline = connection.pipeline(transaction=False)
    for number in range(3000):
        pipeline.hset(keyspace.job_key(f"flood-{number}"), mapping=record)  # type: ignore[arg-type]
    pipeline.rpush(keyspace.queue_key(QUEUE), *(f"flood-{number}" for number in range(3000)))
    seconds, _ = connection.time()
    pipeline.execute()
    wait_until(lambda: connection.llen(keyspace.queue_key(QUEUE)) == 0, "the flood is over")
    elapsed_s = connection.time()[0] - seconds + 2
    lines = log_of(tmp_path).count(" refused: ")
    assert 0 < lines <= elapsed_s * MOST_A_SECOND
    assert len(refused(connection)) <= MOST_KEPT
    assert_mesh_measures(redis_url)


def test_list_of_refusals_is_capped_and_newest_first(connection: redis.Redis) -> None:
    connection.rpush(keyspace.REFUSED, *(b"{}" for _ in range(3 * MOST_KEPT)))
    push(connection, "odd", more="1")
    wait_until(lambda: connection.llen(keyspace.REFUSED) == MOST_KEPT, "it is cut")
    assert refused(connection)[0]["job"] == "odd"


def test_refusals_key_of_another_type_is_replaced(connection: redis.Redis, redis_url: str) -> None:
    connection.set(keyspace.REFUSED, "x")
    push(connection, "odd", more="1")
    wait_until(lambda: not connection.exists(keyspace.REFUSED), "it is put out of the way")
    push(connection, "odd", more="1")
    wait_until(lambda: len(refused(connection)) == 1, "the next is noted")
    assert_mesh_measures(redis_url)


def test_scheduled_and_deferred_jobs_are_nobodys(connection: redis.Redis, redis_url: str) -> None:
    push(connection, "later", more="1")
    wait_until(lambda: len(refused(connection)) == 1, "it is refused where it is queued")
    for registry in ("scheduled", "deferred", "ready", "failed", "wip", "finished"):
        connection.zadd(f"rq:{registry}:{QUEUE}", {"later": 1, "not an id": 1, b"\xff": 1})
    connection.sadd("rq:groups", b"\xff", "rq:group:x")
    connection.set("rq:suspended", 1)
    assert_mesh_measures(redis_url)
    assert len(refused(connection)) == 1


def test_our_own_enqueue_writes_no_field_that_a_worker_refuses(connection: redis.Redis) -> None:
    job = rq_jobs.enqueuing("elsewhere", keyspace.SWEEP, GOOD, job_id="one")
    rq_jobs.carry_out(connection, job)
    fields: Any = connection.hkeys(keyspace.job_key("one"))
    assert {name.decode() for name in fields} <= rq_jobs.JOB_FIELDS
    plain = Queue("x", connection=connection).enqueue_call("os.getpid")
    assert isinstance(plain, Job)


Damage = Callable[[redis.Redis, str], Any]
#: What may be wrong with a run when its row begins → what the refusal says.
RUNS: dict[str, tuple[Damage, str]] = {
    "no plan at all": (lambda c, k: c.hset(k, "plan", b""), "not a plan"),
    "bytes": (lambda c, k: c.hset(k, "plan", b"\xc1" * 99), "not a plan"),
    "a list": (lambda c, k: (c.delete(k), c.rpush(k, "x")), "WRONGTYPE"),
}


def test_row_of_a_damaged_run_is_refused_in_one_line(
    connection: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    key = keyspace.run_key(GOOD["run"])
    for number, (what, (damage, reason)) in enumerate(RUNS.items()):
        connection.hset(key, mapping={"status": "running", "phase": 0})
        damage(connection, key)
        push(connection, f"row-{number}")
        wait_until(lambda n=number + 1: len(refused(connection)) == n, what)  # type: ignore[misc]
        assert reason in refused(connection)[0]["reason"], what
        assert refused(connection)[0]["cause"] == "damaged", what
        connection.delete(key)
    assert log_of(tmp_path).count("Traceback") == 0
    assert_mesh_measures(redis_url)


def test_row_of_another_node_is_refused(connection: redis.Redis, redis_url: str) -> None:
    mesh = Mesh(redis_url)
    plan = mesh.plan(count=1)
    key = keyspace.run_key(GOOD["run"])
    connection.hset(key, mapping={"status": "running", "phase": 0, "plan": plan.packed()})
    push(connection, "row", data=payload(kwargs={**GOOD, "performer": 1}))
    push(connection, "far", data=payload(kwargs={**GOOD, "performer": 7}))
    push(connection, "late", data=payload(kwargs={**GOOD, "phase": 7}))
    wait_until(lambda: len(refused(connection)) == 3, "all are refused")
    assert {entry["cause"] for entry in refused(connection)} == {"foreign"}
    reasons = {entry["job"]: entry["reason"] for entry in refused(connection)}
    assert "belongs to b" in reasons["row"]
    assert "no phase 0 with node 7" in reasons["far"]
    assert "no phase 7 with node 0" in reasons["late"]
    assert_mesh_measures(redis_url)
