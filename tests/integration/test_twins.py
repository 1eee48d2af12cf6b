"""Two machines with one state folder: which of them has the name, and what the other says."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from programs import start_worker
from waiting import wait_until

from worker.wire import keyspace, liveness, scripts
from worker.wire.node_record import Node
from worker.wire.registry import read_nodes

pytestmark = pytest.mark.redis

#: A copy is refused within 30 s; the rest is a busy machine's, on which all of it must start.
REFUSED_S = 90.0
HERE = socket.gethostname()


@contextmanager
def machine(
    url: str, folder: Path, address: str, disk: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Be a machine on which node a is started, with a copy of another one's disk."""
    folder.mkdir(exist_ok=True)
    if disk is not None:
        shutil.copytree(disk / "state", folder / "state", dirs_exist_ok=True)
    process = start_worker(url, "a", address, folder, ["-v"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def log_of(folder: Path) -> str:
    return (folder / "a.log").read_text()


def wait_until_ready(folder: Path) -> None:
    wait_until(lambda: "is ready" in log_of(folder), f"the worker of {folder.name} is ready")


def registered(connection: redis.Redis) -> Node:
    (node,) = read_nodes(connection)
    return node


def check_says_both(log: str, first: str, second: str) -> None:
    (line,) = [line for line in log.splitlines() if line.startswith("error: ")]
    assert "two workers whose state folders have the same token" in line
    assert f"one on host {HERE} at {first}, and this one" in line
    assert f"on host {HERE} at {second}; stop one of them, or give it another --name" in line


def test_a_copied_disk_is_refused_while_the_first_lives_and_taken_when_it_has_died(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    disk, copied = tmp_path / "disk", tmp_path / "copied"
    with machine(redis_url, disk, "127.0.0.1") as first:
        wait_until_ready(disk)
        with machine(redis_url, copied, "127.0.0.2", disk) as second:
            assert second.wait(REFUSED_S) == 2
        check_says_both(log_of(copied), "127.0.0.1", "127.0.0.2")
        # It had no moment in which others could measure it, or it them.
        assert "is ready" not in log_of(copied)
        assert "began with the token" not in log_of(disk)
        assert first.poll() is None
        assert registered(connection).alive
        assert registered(connection).address == "127.0.0.1"
    # Power has failed, and the machine is back at once, at another address.
    with machine(redis_url, copied, "127.0.0.3") as second:
        wait_until_ready(copied)
        assert registered(connection).address == "127.0.0.3"
        second.terminate()
        assert second.wait(30) == 0
        assert registered(connection).stopped
    # Who says goodbye is not waited for.
    with machine(redis_url, disk, "127.0.0.4"):
        wait_until_ready(disk)
    assert "waiting whether it lives" not in log_of(disk)


def test_who_was_away_while_its_copy_began_has_its_name_back(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    disk, copied = tmp_path / "disk", tmp_path / "copied"
    with machine(redis_url, disk, "127.0.0.1") as first:
        wait_until_ready(disk)
        os.kill(first.pid, signal.SIGSTOP)
        away = scripts.redis_seconds(connection) - liveness.ALIVE_S
        connection.zadd(keyspace.NODES, {"a": away})  # the time that it takes is not waited for
        with machine(redis_url, copied, "127.0.0.2", disk) as second:
            wait_until_ready(copied)
            assert registered(connection).address == "127.0.0.2"
            os.kill(first.pid, signal.SIGCONT)
            assert second.wait(REFUSED_S) == 2
        check_says_both(log_of(copied), "127.0.0.1", "127.0.0.2")
        told = f"another worker began with the token of this node, on host {HERE} at 127.0.0.2"
        assert told in log_of(disk)
        assert first.poll() is None
        assert (registered(connection).address, registered(connection).alive) == ("127.0.0.1", True)


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
def test_two_containers_on_one_volume_are_told_at_once(redis_url: str, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    with machine(redis_url, volume, "127.0.0.1"):
        wait_until_ready(volume)
        argv = [sys.executable, "-m", "coordinator.cli", "worker", "--name", "a"]
        argv += ["--address", "127.0.0.2", "--state-dir", str(volume / "state")]
        done = subprocess.run(
            ["unshare", "--fork", "--pid", "--uts", "--ipc", "--mount-proc", *argv],
            env={**os.environ, "PTZMESH_REDIS_URL": redis_url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2, done.stderr
    assert "in use by another worker on this machine" in done.stderr
