"""Real workers as separate processes on 127.0.0.x, and a way to wait for what they do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis

from coordinator.nodes import read_nodes

DEADLINE_S = 30.0


def eventually(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait until a condition holds, or fail with what was waited for."""
    until = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until, f"not within {deadline_s} s: {what}"
        time.sleep(0.05)


def start_worker(
    url: str, name: str, address: str, folder: Path, more: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start a worker; its log is `<name>.log` in the folder."""
    command = [sys.executable, "-m", "coordinator.cli", "worker", "--name", name, *more]
    command += ["--address", address, "--state-dir", str(folder / "state")]
    environment = {**os.environ, "PTZMESH_REDIS_URL": url}
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, stderr=log)


def alive(connection: redis.Redis) -> list[str]:
    return [node.name for node in read_nodes(connection) if node.alive]


@contextmanager
def workers(
    url: str,
    connection: redis.Redis,
    folder: Path,
    names: Sequence[str],
    more: Sequence[str] = (),
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Run workers until the block ends; all are registered when it begins."""
    started = {
        name: start_worker(url, name, f"127.0.0.{place + 1}", folder, more)
        for place, name in enumerate(names)
    }
    try:
        eventually(lambda: set(names) <= set(alive(connection)), "the workers are registered")
        yield started
    finally:
        for process in started.values():
            process.terminate()
        for process in started.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def cli(url: str, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a command of ours as a person would."""
    return subprocess.run(
        [sys.executable, "-m", "coordinator.cli", *arguments],
        env={**os.environ, "PTZMESH_REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
