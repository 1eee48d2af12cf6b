"""Real workers as separate processes on 127.0.0.x, and a way to wait for what they do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from forked import START, run
from programs import environment_of, start_worker, stop
from waiting import wait_until

from coordinator import Mesh
from worker.model.measurement import Outcome
from worker.wire.registry import read_nodes

#: An echo to this machine itself may take so long where that stalls.
PATIENCE_S = 10.0


def alive(connection: redis.Redis) -> list[str]:
    return [node.name for node in read_nodes(connection) if node.alive]


@contextmanager
def workers(
    url: str,
    connection: redis.Redis,
    folder: Path,
    names: Sequence[str],
    more: Sequence[str] = (),
    *,
    first: int = 1,
    **how: Any,
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """
    Run workers until the block ends; all are registered, with both children, when it begins.

    Their addresses are 127.0.0.`first` and those after it; `how` is that of `start_worker`.
    """
    logs = {name: folder / f"{name}.log" for name in names}
    said = {name: len(_read(log)) for name, log in logs.items()}  # by an earlier one in this folder
    started = {
        name: start_worker(url, name, f"127.0.0.{place + first}", folder, more, **how)
        for place, name in enumerate(names)
    }

    def are_ready() -> bool:
        ended = [name for name, process in started.items() if process.poll() is not None]
        assert not ended, f"{ended[0]} ended: {_read(logs[ended[0]])[-2000:].decode()}"
        # The word comes after the children; the registration, before.
        told = all(b"is ready" in _read(log)[said[name] :] for name, log in logs.items())
        return told and set(names) <= set(alive(connection))

    try:
        wait_until(are_ready, "the workers are ready")
        yield started
    finally:
        stop(started.values())


def assert_mesh_measures(url: str) -> None:
    """
    See that every pair of the live nodes is measured, and answers.

    One echo is enough to tell that, but not for a figure: where the machine took the CPU away while
    the echo was sent, its time is refused.
    """
    found = list(Mesh(url).run(count=1, wait_s=PATIENCE_S, join=False).wait().measurements())
    assert found
    assert {one.outcome for one in found} == {Outcome.OK}, found
    assert {one.detail.received for one in found} == {1}, found


def _read(log: Path) -> bytes:
    return log.read_bytes() if log.exists() else b""


def cli(url: str, *arguments: str, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
    """Run a command of ours as a person would."""
    return run([*START, *arguments], env=environment_of(url), timeout=timeout_s)
