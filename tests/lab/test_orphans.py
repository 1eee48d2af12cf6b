"""A worker that is process 1, as in a container without an init, leaves no zombie."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from forked import START
from integration.nodes import cli, workers
from programs import start_worker
from waiting import wait_until

from worker.wire.registry import read_nodes

pytestmark = [pytest.mark.lab, pytest.mark.redis]


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in listed.read_text().split()] if listed.exists() else []


@pytest.fixture
def first(redis_url: str, connection: redis.Redis, tmp_path: Path) -> Iterator[int]:
    """The supervisor of node `a`, by its number out here; in there it is 1."""
    program = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *START]
    outside = start_worker(redis_url, "a", "127.0.0.1", tmp_path, program=program)
    try:
        wait_until(lambda: any(node.alive for node in read_nodes(connection)), "it is alive")
        (supervisor,) = children(outside.pid)
        wait_until(lambda: len(children(supervisor)) == 2, "it has both children")
        yield supervisor
    finally:
        outside.kill()
        outside.wait()


def test_the_work_horse_of_a_prober_that_was_killed_is_reaped(
    first: int, redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    with workers(redis_url, connection, tmp_path, ["b"]):
        asked = cli(redis_url, "run", "--from", "a", "--to", "b", "--count", "200", "--detach")
        assert asked.returncode == 0, asked.stderr
        wait_until(lambda: any(map(children, children(first))), "a prober has a work-horse")
        prober = next(child for child in children(first) if children(child))
        (horse,) = children(prober)
        os.kill(prober, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{prober}").exists(), "the prober is reaped")
        wait_until(lambda: not Path(f"/proc/{horse}").exists(), "its work-horse is reaped")
