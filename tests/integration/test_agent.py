"""A node as a process: registers, measures, refuses, is restarted, goes."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from programs import start_worker
from rq import Queue
from rq.exceptions import StopRequested
from waiting import wait_until

from coordinator import Mesh
from coordinator.embedded import EmbeddedServer
from coordinator.runs.runs import of_run
from integration.nodes import alive, assert_mesh_measures, cli, workers
from worker.model.csv_columns import CSV_COLUMNS
from worker.model.measurement import Outcome, made
from worker.node.allowlist import allow_listed
from worker.node.rq_worker import QuietWorker
from worker.probes.icmp.engine import icmp_capability
from worker.wire import keyspace, rq_jobs, run_record
from worker.wire.connection import server
from worker.wire.registry import read_nodes

LEVELS = ("INFO", "WARNING", "ERROR")

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping"),
]


@pytest.fixture
def pair(redis_url: str, connection: redis.Redis, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Two nodes, a and b."""
    with workers(redis_url, connection, tmp_path, ["a", "b"]) as started:
        yield started


def log_of(folder: Path, name: str) -> str:
    return (folder / f"{name}.log").read_text()


def children_of(pid: int) -> list[int]:
    text = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in text.stdout.split()]


@pytest.mark.usefixtures("pair")
def test_mesh_is_measured_in_three_lines(redis_url: str) -> None:
    # A time may be refused where the machine is busy; not those of all echoes.
    matrix = Mesh(redis_url).run(count=20, interval_s=0.01).wait().matrix()
    assert matrix.value("a", "b") is not None
    assert matrix.value("a", "a") is None


def test_node_says_what_it_is(pair: dict[str, Any], connection: redis.Redis) -> None:
    found = {node.name: node for node in read_nodes(connection)}
    assert found["a"].address == "127.0.0.1"
    assert found["a"].icmp in ("raw", "datagram")
    # One machine, one clock: however busy it is, the offset is none within its uncertainty.
    for node in found.values():
        assert abs(node.clock_offset_ms or 0.0) <= (node.clock_offset_uncertainty_ms or -1.0)
    assert pair["a"].poll() is None


@pytest.mark.usefixtures("pair")
def test_rows_carry_the_clocks_offset_and_how_far_it_may_be_wrong(redis_url: str) -> None:
    run = Mesh(redis_url).run(probes=("ping", "tcp", "redis")).wait()
    found = [one for _, one in of_run(run.connection, run.id)]
    assert len(found) == 6
    for one in found:
        assert one.detail.clock_offset_uncertainty_ms >= abs(one.detail.clock_offset_ms)
        # And a nanosecond is the least that any of their times tells.
        assert made(one) == one
        cells = dict(zip(CSV_COLUMNS, one.to_row("1-0"), strict=True))
        long = {name: cell for name, cell in cells.items() if re.search(r"\.\d{10}", str(cell))}
        assert long == {}


@pytest.mark.usefixtures("pair")
def test_echo_ahead_of_the_series_is_in_the_csv_unless_it_is_left_out(
    redis_url: str, tmp_path: Path
) -> None:
    def rows(*options: str) -> list[dict[str, str]]:
        file = tmp_path / "mesh.csv"
        file.unlink(missing_ok=True)
        said = cli(redis_url, "run", "--count", "3", "--csv", str(file), *options)
        assert said.returncode == 0, said.stderr
        with file.open(newline="") as opened:
            return list(csv.DictReader(opened))

    cold = rows("--no-warm-up")
    assert [row["wake_ms"] for row in cold] == ["", ""]
    assert {(row["sent"], row["reply_ttl"]) for row in cold} == {("3", "64")}
    # Of an echo whose send lost the CPU there is no time, so a busy machine may ask again.
    wait_until(lambda: any(row["wake_ms"] for row in rows()), "the echo ahead has a time")
    assert {(row["sent"], row["reply_ttl"]) for row in rows()} == {("3", "64")}
    cost = [json.loads(cli(redis_url, "run", "--dry-run", "--json", *options).stdout)
            for options in ((), ("--no-warm-up",))]  # fmt: skip
    assert [one["bytes_per_node"]["a"] for one in cost] == [2 * 2 * 84 * n for n in (11, 10)]


@pytest.mark.usefixtures("pair")
def test_second_node_of_the_same_name_is_refused(redis_url: str, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    process = start_worker(redis_url, "a", "127.0.0.9", other)
    assert process.wait(60) == 2
    said = log_of(other, "a").strip().splitlines()
    assert len(said) == 1
    assert "taken by a live node" in said[0]


@pytest.mark.usefixtures("pair")
def test_same_name_in_the_same_state_folder_is_refused(redis_url: str, tmp_path: Path) -> None:
    process = start_worker(redis_url, "a", "127.0.0.9", tmp_path)
    assert process.wait(60) == 2
    assert "in use by another worker on this machine" in log_of(tmp_path, "a")


def test_killed_supervisor_takes_its_workers_along_and_may_come_back_at_once(
    pair: dict[str, Any], redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    children = children_of(pair["a"].pid)
    assert len(children) == 2
    pair["a"].kill()
    pair["a"].wait()
    wait_until(lambda: not any(map(_exists, children)), "its workers are gone")
    pair["a"] = start_worker(redis_url, "a", "127.0.0.1", tmp_path)
    wait_until(lambda: log_of(tmp_path, "a").count("is ready") == 2, "it is back")
    assert_mesh_measures(redis_url)
    assert sorted(alive(connection)) == ["a", "b"]


def _exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # an orphan that nobody waits for, as in a container without an init


def test_killed_prober_is_restarted(pair: dict[str, Any], redis_url: str) -> None:
    before = children_of(pair["a"].pid)
    assert len(before) == 2
    for child in before:
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: len(set(children_of(pair["a"].pid)) - set(before)) == 2, "two new workers")
    assert_mesh_measures(redis_url)


def test_sigterm_ends_a_node_within_ten_seconds_and_says_goodbye(
    pair: dict[str, Any], connection: redis.Redis
) -> None:
    pair["a"].terminate()
    assert pair["a"].wait(10) == 0
    assert alive(connection) == ["b"]


def stop(*_arguments: object) -> None:
    """Do what SIGTERM does in RQ's worker, whatever that is at."""
    raise StopRequested


def test_sigterm_is_heeded_while_registries_are_tidied(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = QuietWorker(["x"], connection=connection, serializer=rq_jobs.MsgpackSerializer)
    monkeypatch.setattr(worker, "clean_registries", stop)
    with pytest.raises(StopRequested):
        worker.run_maintenance_tasks()


def test_sigterm_is_heeded_while_a_job_is_read_and_the_job_is_not_refused(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def advance(run: str) -> None:
        assert run

    job = rq_jobs.enqueuing("x", keyspace.ADVANCE, {"run": "y"}, job_id="one")
    rq_jobs.carry_out(connection, job)
    job_class = allow_listed({keyspace.ADVANCE: advance})
    serializer = rq_jobs.MsgpackSerializer
    assert job_class.fetch("one", connection, serializer=serializer).id == "one"
    monkeypatch.setattr(serializer, "loads", stop)
    with pytest.raises(StopRequested):
        job_class.fetch("one", connection, serializer=serializer)


def test_row_in_hand_is_handed_back_and_finished_after_a_restart(
    pair: dict[str, Any], redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    run = Mesh(redis_url).run(count=60, interval_s=0.1)
    started = run_record.row_fields(0, 0).started
    wait_until(lambda: bool(connection.hexists(keyspace.run_key(run.id), started)), "a has begun")
    pair["a"].terminate()
    assert pair["a"].wait(10) == 0
    assert connection.llen(keyspace.queue_key(keyspace.node_queue("a"))) == 1
    pair["a"] = start_worker(redis_url, "a", "127.0.0.1", tmp_path)
    run.wait()
    assert [m.outcome for _, m in of_run(connection, run.id)] == [Outcome.OK] * 2


def test_crashed_sweep_ends_with_rows_that_say_so(
    pair: dict[str, Any], redis_url: str, connection: redis.Redis
) -> None:
    run = Mesh(redis_url).run(count=100, interval_s=0.1, sources=["a"])
    probers = children_of(pair["a"].pid)
    # One that is killed before it begins has measured nothing, and is done again.
    started = run_record.row_fields(0, 0).started
    wait_until(lambda: bool(connection.hexists(keyspace.run_key(run.id), started)), "a has begun")
    (horse,) = [h for p in probers for h in children_of(p)]
    os.kill(horse, signal.SIGKILL)
    run.wait()
    assert [m.outcome for _, m in of_run(connection, run.id)] == [Outcome.CRASHED]


def test_target_that_is_no_node_is_denied(
    pair: dict[str, Any], redis_url: str, connection: redis.Redis
) -> None:
    mesh = Mesh(redis_url)
    plan = mesh.plan(count=1, sources=["a"], targets=["b"])
    pair["b"].kill()  # its next heartbeat would say its address again
    pair["b"].wait()
    connection.delete(keyspace.node_key("b"))
    run = mesh.start(plan).wait()
    (row,) = [m for _, m in of_run(connection, run.id)]
    assert row.outcome is Outcome.DENIED


def test_target_is_measured_where_it_is_now_not_where_the_plan_found_it(
    pair: dict[str, Any], redis_url: str, connection: redis.Redis
) -> None:
    mesh = Mesh(redis_url)
    plan = mesh.plan(probes=["ping", "tcp"], count=1, sources=["a"], targets=["b"])
    pair["b"].kill()  # its next heartbeat would say its address again
    pair["b"].wait()
    connection.hdel(keyspace.node_key("b"), "place")
    connection.hset(keyspace.node_key("b"), "address", "127.0.0.77")
    rows = [m for _, m in of_run(connection, mesh.start(plan).wait().id)]
    assert [(row.probe, row.outcome, row.address) for row in rows] == [
        ("ping", Outcome.OK, "127.0.0.77"),
        ("tcp", Outcome.OK, "127.0.0.77"),
    ]
    # What is judged is where it is now.
    connection.hset(keyspace.node_key("b"), "address", "224.0.0.1")
    rows = [m for _, m in of_run(connection, mesh.start(plan, join=False).wait().id)]
    assert {row.outcome for row in rows} == {Outcome.DENIED}


@pytest.mark.usefixtures("pair")
def test_only_what_is_on_the_list_is_executed_and_the_worker_lives(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    ours = Queue(
        keyspace.node_queue("a"), connection=connection, serializer=rq_jobs.MsgpackSerializer
    )
    ours.enqueue_call("os.system", args=[f"touch {trap}"])
    ours.enqueue_call(keyspace.SWEEP, kwargs={"run": "x", "phase": "y", "performer": []})
    ours.enqueue_call(keyspace.SWEEP, args=["a", 0, 0])
    ours.enqueue_call(keyspace.SWEEP, kwargs={"nonsense": 1})
    ours.enqueue_call(keyspace.ADVANCE, kwargs={"run": ["not", "text"]})
    pickled = Queue(keyspace.node_queue("a"), connection=connection)
    pickled.enqueue_call("subprocess.call", args=[["touch", str(trap)]])
    job = ours.create_job(keyspace.ADVANCE, kwargs={"run": "none"}, timeout=5)
    job.save()
    connection.hset(job.key, "success_callback_name", "os.abort")
    connection.hset(job.key, "failure_callback_name", "os.abort")
    ours.push_job_id(job.id)
    broken = ours.create_job(keyspace.ADVANCE, kwargs={"run": "none"})
    broken.save()
    connection.hset(broken.key, mapping={"status": "no such status", "timeout": "-5"})
    ours.push_job_id(broken.id)
    bomb = ours.create_job(keyspace.ADVANCE, kwargs={"run": "none"})
    bomb.save()
    connection.hset(bomb.key, "data", pickle.dumps(os.abort))
    ours.push_job_id(bomb.id)
    assert_mesh_measures(redis_url)
    assert not trap.exists()
    assert "not on the allow-list" in log_of(tmp_path, "a")
    assert "restart" not in log_of(tmp_path, "a")
    assert log_of(tmp_path, "a").count("starts again") == 0


def test_workers_come_back_when_redis_does(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    connection = server.connect(redis_server.url)
    with workers(redis_server.url, connection, tmp_path, ["a", "b"], ["-v"]) as started:
        run = Mesh(redis_server.url).run(count=50)
        begun = run_record.row_fields(0, 0).started
        wait_until(lambda: connection.hexists(keyspace.run_key(run.id), begun), "it has begun")
        redis_server.kill()
        tried = "outbox waits with"
        wait_until(lambda: log_of(tmp_path, "a").count(tried) >= 3, "its results wait on the disk")
        redis_server.start()
        back = (
            "Redis is back"  # the last heartbeat before is young enough to be taken for a new one
        )
        wait_until(lambda: back in log_of(tmp_path, "a"), "a is heard")
        wait_until(lambda: back in log_of(tmp_path, "b"), "b is heard")
        assert_mesh_measures(redis_server.url)
        assert all(process.poll() is None for process in started.values())
    lines = [json.loads(line) for line in log_of(tmp_path, "a").splitlines()]
    said = {level: [one["message"] for one in lines if one["level"] == level] for level in LEVELS}
    warned = [" ".join(text.split()[:3]) for text in said["WARNING"]]
    assert (warned, said["ERROR"]) == (["Redis is away,", "Redis is back"], [])
    kinds = Counter(" ".join(text.split()[:2]) for text in said["INFO"])
    assert max(kinds.values()) <= 2, "a line that comes again while Redis is away"


def test_nodes_register_anew_when_redis_has_lost_its_data(
    pair: dict[str, Any], redis_url: str, connection: redis.Redis
) -> None:
    assert pair
    connection.flushall()
    wait_until(lambda: sorted(alive(connection)) == ["a", "b"], "both are registered again")
    assert_mesh_measures(redis_url)


def test_no_secret_is_in_what_a_worker_says(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    connection = server.connect(redis_server.url)
    connection.config_set("requirepass", "hunter2")
    url = redis_server.url.replace("unix://", "unix://:hunter2@")
    process = start_worker(url, "a", "127.0.0.1", tmp_path, alone=True)
    wait_until(lambda: "is ready" in log_of(tmp_path, "a"), "it is ready")
    argv = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    redis_server.kill()
    wait_until(lambda: "Redis is away" in log_of(tmp_path, "a"), "it noticed")
    process.terminate()
    process.wait(60)
    assert b"worker" in argv
    assert b"hunter2" not in argv
    assert "hunter2" not in log_of(tmp_path, "a")


WRONG_USE: list[tuple[list[str], int, str]] = [
    (["run", "--nodes", "zz"], 2, "not registered"),
    (["run", "--nodes=-x"], 2, "node name"),
    (["run", "--count", "0"], 2, "count (0)"),
    (["run", "--csv", "/proc/no/such.csv"], 2, "csv"),
    (["show", "nope"], 2, "there is none yet"),
    (["cancel", "nope"], 2, "there is none yet"),
    (["worker", "--name", "-x"], 2, "node name"),
    (["worker", "--address", "224.0.0.1"], 2, "224.0.0.1"),
    (["verify", "last", "--csv", "/nowhere.csv"], 2, "there is none yet"),
    (["bogus"], 2, "there is no command"),
    (["run", "--bogus"], 2, "--bogus"),
    (["nodes", "--redis", "redis://127.0.0.1:1"], 3, "does not answer"),
    (["nodes", "--redis", "nonsense"], 2, "Redis URL"),
    (["--config", "/nowhere.toml", "nodes"], 2, "/nowhere.toml"),
]


@pytest.mark.usefixtures("pair")
def test_wrong_use_is_one_line_and_an_exit_code(redis_url: str) -> None:
    for arguments, code, word in WRONG_USE:
        done = cli(redis_url, *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, (arguments, done.stderr)
        assert word in errors[0], arguments
        assert "Traceback" not in done.stderr, arguments


def test_a_worker_whose_own_address_does_not_resolve_says_so_and_is_not_just_ready(
    redis_url: str, tmp_path: Path
) -> None:
    process = start_worker(redis_url, "lost", "no-such.invalid", tmp_path, ["-v"])
    log = tmp_path / "lost.log"
    try:
        wait_until(lambda: b"is ready" in log.read_bytes(), "it is ready")
    finally:
        process.terminate()
        process.wait(60)
    text = log.read_text()
    assert "address no-such.invalid of this node does not resolve here" in text
    assert "no-such.invalid, which does not resolve here, is ready" in text
