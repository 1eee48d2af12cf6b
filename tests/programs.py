"""Workers of ours as processes, started in one way by all tests: here, and by others in a lab."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import forked
from forked import START

#: A worker says goodbye within 10 s; the rest is a busy machine's.
STOP_S = 60.0


def environment_of(url: str, **more: str) -> dict[str, str]:
    """Return this process' environment with a Redis, and more."""
    return {**os.environ, "PTZMESH_REDIS_URL": url, **more}


def worker_argv(
    name: str, state_dir: Path, *options: str, program: Sequence[str] = START
) -> list[str]:
    """Return the command of a worker that keeps its state in a folder."""
    return [*program, "worker", "--name", name, "--state-dir", str(state_dir), *options]


def start_worker(
    url: str,
    name: str,
    address: str,
    folder: Path,
    more: Sequence[str] = (),
    *,
    program: Sequence[str] = START,
    env: Mapping[str, str] | None = None,
    alone: bool = False,
) -> subprocess.Popen[bytes]:
    """
    Start a worker.

    Args:
        url: Of its Redis.
        name: Its own.
        address: Its own.
        folder: Gets its log, `<name>.log`, and its state, in `state`.
        more: Options.
        program: What runs instead of ours: with options before the command, or another version.
        env: The whole environment, where it is not this process' own with the URL.
        alone: Not forked from a process that has imported ptzmesh, so that /proc shows its command.
    """
    argv = worker_argv(name, folder / "state", "--address", address, *more, program=program)
    is_ours = list(program[: len(START)]) == START and not alone
    begin: Any = forked.start if is_ours else subprocess.Popen
    with (folder / f"{name}.log").open("ab") as log:
        started: subprocess.Popen[bytes] = begin(
            argv, env=environment_of(url) if env is None else env, cwd=folder, stderr=log
        )
    return started


def stop(processes: Iterable[subprocess.Popen[Any]]) -> None:
    """Terminate processes, wait for them, and kill those that do not end."""
    processes = list(processes)
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running_worker(*args: Any, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker until the block ends; the arguments are those of `start_worker`."""
    process = start_worker(*args, **options)
    try:
        yield process
    finally:
        stop([process])
