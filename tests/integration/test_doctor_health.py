"""`ptzmesh doctor --quick`, the health check of a node, and what `--between` needs."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import redis
from programs import start_worker
from waiting import wait_until

from coordinator.embedded import EmbeddedServer
from coordinator.runs.runs import recent
from integration.doctor_calls import beat, doctor, may_ping
from integration.nodes import alive, cli
from worker.wire import keyspace
from worker.wire.connection import server

pytestmark = pytest.mark.redis


def quick(url: str, name: str) -> subprocess.CompletedProcess[str]:
    return cli(url, "doctor", "--quick", "--name", name)


def cpu_s(act: Callable[[], object]) -> float:
    """Give the CPU seconds of the children that an act starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    act()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@may_ping
def test_a_health_check_passes_while_the_node_lives_and_fails_when_a_worker_is_stuck(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    last = quick(redis_url, "a")

    def says(code: int, words: str) -> bool:
        # A Redis that is held up for half a second is no healthy one, either.
        nonlocal last
        last = quick(redis_url, "a")
        is_line = len(last.stdout.splitlines()) == 1
        return is_line and last.returncode == code and words in last.stdout

    def is_without_its_responder() -> bool:
        # (RQ's worker notices now and then that it is not registered.)
        connection.delete(*connection.smembers("rq:workers:ptzmesh:serve:a"), "-")
        return says(4, "responder not registered")

    process = start_worker(redis_url, "a", "127.0.0.1", tmp_path)
    try:
        wait_until(lambda: says(0, "ok: a heard "), "it is healthy")
        assert last.stdout.startswith("ok: ")
        wait_until(is_without_its_responder, "it is not healthy")
    finally:
        process.terminate()
        process.wait(60)
    assert alive(connection) == []
    wait_until(lambda: says(4, "stopped"), "it is not healthy")


@pytest.mark.long
def test_a_health_check_costs_less_than_twice_what_its_libraries_do(redis_url: str) -> None:
    def least_cpu_s(act: Callable[[], object]) -> float:
        return min(cpu_s(act) for _ in range(3))

    argv = [sys.executable, "-c", "import click, redis, rq"]
    least = least_cpu_s(lambda: subprocess.run(argv, check=True))
    argv = [*forked.START, "doctor", "--quick", "--name", "nobody", "--redis", redis_url]
    assert least_cpu_s(lambda: subprocess.run(argv, capture_output=True, check=False)) < 2 * least


def test_a_health_check_ends_in_time_when_redis_does_not_answer(
    redis_server: EmbeddedServer,
) -> None:
    begun = time.monotonic()
    os.kill(redis_server.pid, signal.SIGSTOP)  # it takes connections, and says nothing
    try:
        done = quick(redis_server.url, "a")
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    assert done.returncode == 3
    assert time.monotonic() - begun < 7.5  # every other command waits for 8 s, and tries again
    assert len(done.stdout.splitlines()) == 1


def test_a_node_that_was_never_heard_is_not_healthy(redis_url: str) -> None:
    done = quick(redis_url, "nobody")
    assert done.returncode == 4
    assert done.stdout == "fail: nobody was never heard\n"


def test_between_needs_two_registered_nodes(redis_url: str, connection: redis.Redis) -> None:
    beat(connection, "a")
    for nodes in (("a", "a"), ("a", "strange")):
        done = cli(redis_url, "doctor", "--between", *nodes)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_between_a_node_that_is_gone_says_what_brings_it_back(
    redis_url: str, connection: redis.Redis
) -> None:
    beat(connection, "a", silent_s=99)
    beat(connection, "b", stopped="1", silent_s=99)
    said = doctor(redis_url, "--between", "a", "b")
    silent, stopped = (one["fix"] for one in said.lines)
    # It may be cut off: a second worker is refused where one runs.
    assert silent == "there: ptzmesh doctor --name a; if no worker runs: ptzmesh worker --name a"
    assert stopped == "there: ptzmesh worker --name b"
    alone = doctor(redis_url, "--quick", "--name", "a")
    assert alone["own heartbeat"]["fix"] == (
        "see its log; if it does not run: ptzmesh worker --name a"
    )


@pytest.mark.parametrize(
    ("limit", "most", "word"),
    [
        ("run_bytes", 10, "the open runs take"),
        ("commands_per_s", 1, "commands a second to Redis"),
        ("stream_entries", 1, "the results stream is full"),
        ("redis_memory_pct", 1, "Redis is short of memory"),
    ],
)
def test_between_keeps_to_the_limits_of_every_run(
    redis_server: EmbeddedServer, limit: str, most: int, word: str
) -> None:
    redis_url, connection = redis_server.url, server.connect(redis_server.url)
    connection.config_set("maxmemory", 50_000_000)
    connection.xadd(keyspace.RESULTS, {"v": "1"})
    for node in ("a", "b"):
        beat(connection, node, redis_commands_per_s="100")
    assert cli(redis_url, "run", "--detach").returncode == 0
    before = recent(connection, 9)
    connection.hset(keyspace.LIMITS, limit, most)
    for command in (["run", "--new", "--detach"], ["doctor", "--between", "a", "b"]):
        done = cli(redis_url, *command)
        assert done.returncode == 3, done.stderr
        assert word in done.stderr
    assert recent(connection, 9) == before
