"""
A mesh in the lab: a worker on each node, and the command line run from inside the nodes.

The test itself reads Redis over its socket, which no cut of the lab touches.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from forked import START
from programs import worker_argv
from side_by_side import beside, place
from waiting import DEADLINE_S, wait_until

from coordinator.results.results import read
from coordinator.runs.runs import read_run
from lab.net import Lab
from lab.node import Node
from lab.redis_server import Persist
from worker.model.measurement import Measurement, Outcome
from worker.wire import keyspace, run_record
from worker.wire.connection import server
from worker.wire.registry import read_nodes
from worker.wire.run_record import Run

#: Of commands and runs, which take half a minute more when a node is lost.
ENDED_S = 240.0

LOG_CHARS = 4000

Pair = tuple[str, str]


@dataclass(frozen=True)
class Said:
    """What a command that has ended left behind; `rows` are its JSON lines that are results."""

    code: int
    lines: list[dict[str, Any]]
    err: str

    @property
    def rows(self) -> dict[Pair, dict[str, Any]]:
        """Results by pair; a pair that is there twice fails."""
        found = [line for line in self.lines if "source" in line]
        by_pair = {(row["source"], row["target"]): row for row in found}
        assert len(by_pair) == len(found), "a pair is there twice"
        return by_pair

    @property
    def run(self) -> str:
        """The id of the run that the first line names."""
        return str(self.lines[0]["run"])


class LabMesh:
    """
    Workers on nodes of a lab with a Redis.

    Attributes:
        lab: The lab; the workers end with it.
        connection: To its Redis, over the socket.
        workers: The supervisor of each node that has one, by name.
    """

    def __init__(self, lab: Lab) -> None:
        """Refer to the lab; nothing is started yet."""
        self.lab = lab
        self.connection = server.connect(lab.redis.socket_url)
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def env(self) -> dict[str, str]:
        """What every command of the mesh is told."""
        return {"PTZMESH_REDIS_URL": self.lab.redis_url}

    def state_dir(self, name: str) -> Path:
        """Give the folder in which a node keeps its state: each is a machine of its own."""
        return self.lab.directory / f"state-{name}"

    def log(self, name: str) -> Path:
        """Give a worker's log."""
        return self.lab.directory / f"{name}.log"

    def logs(self) -> str:
        """Give the end of each worker's log, for a failed test: the lab goes, and they with it."""
        texts = {name: self.log(name).read_text() for name in self.workers}
        return "\n".join(f"--- {name}\n{text[-LOG_CHARS:]}" for name, text in texts.items())

    def outbox_bytes(self, name: str) -> int:
        """Give the size of what waits on a node's disk."""
        path = self.state_dir(name) / f"{name}.outbox"
        return path.stat().st_size if path.exists() else 0

    def start(
        self,
        node: Node,
        *options: str,
        name: str | None = None,
        prefix: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a worker on a node, by default under the node's name; `prefix` runs it."""
        name = name or node.name
        argv = worker_argv(name, self.state_dir(name), *options, program=[*prefix, *START])
        self.workers[name] = node.start(argv, env=self.env, log=self.log(name))
        return self.workers[name]

    def start_all(self, nodes: Sequence[Node] | None = None) -> None:
        """Start a worker on each node and wait until all are alive."""
        chosen = self.lab.nodes if nodes is None else nodes
        for node in chosen:
            self.start(node)
        self.wait_until_alive(*(node.name for node in chosen))

    def alive(self) -> set[str]:
        """Give the names of the nodes that are alive."""
        return {node.name for node in read_nodes(self.connection) if node.alive}

    def wait_until_alive(self, *names: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait until these nodes are alive."""
        wait_until(lambda: self.alive() >= set(names), f"{names} are alive", deadline_s)

    def cli(self, node: Node, *arguments: str, timeout_s: float = ENDED_S) -> Said:
        """Run a command on a node to its end."""
        argv = [*START, *arguments]
        done = node.run(argv, env=self.env, timeout_s=timeout_s, check=False)
        return Said(done.returncode, _json_lines(done.stdout), done.stderr)

    def detach(self, node: Node, *arguments: str) -> str:
        """Start a run from a node and give its id at once."""
        said = self.cli(node, "run", "--detach", "--json", *arguments)
        assert said.code == 0, said.err
        return said.run

    @contextmanager
    def command(self, node: Node, *arguments: str) -> Iterator[Command]:
        """Run a command on a node beside the block; it is killed at the block's end."""
        process = subprocess.Popen(
            node.inside([*START, *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # else `first_line` takes what comes after it from `end`
            env={**os.environ, **self.env},
            start_new_session=True,
        )
        with process:
            try:
                yield Command(process)
            finally:
                process.kill()

    def state(self, run: str) -> Run:
        """Read a run as it stands."""
        return read_run(self.connection, run)

    def wait_until_ended(self, run: str, deadline_s: float = ENDED_S) -> Run:
        """Wait until a run has ended, and give its last state."""
        wait_until(lambda: not self.state(run).is_open, f"run {run} has ended", deadline_s)
        return self.state(run)

    def wait_until_begun(self, run: str, *names: str) -> None:
        """Wait until these nodes (all sources when none is named) have begun their rows."""
        plan = self.state(run).plan
        rows = [plan.index_of[name] for name in names] or plan.sources
        fields = [run_record.row_fields(0, row).started for row in rows]
        wait_until(
            lambda: None not in self.connection.hmget(keyspace.run_key(run), fields),
            f"the rows of {names or 'all'} have begun",
        )

    def rows(self, run: str) -> dict[Pair, Measurement]:
        """Give a run's results in the stream by pair; exactly one for each pair, or fail."""
        found = [measurement for _, measurement in read(self.connection, run=run)]
        plan = self.state(run).plan
        names = [node.name for node in plan.nodes]
        counts = Counter((one.source, one.target) for one in found)
        assert counts == Counter((names[s], names[t]) for s, t in plan.node_pairs())
        return {(one.source, one.target): one for one in found}

    def outcomes(self, run: str, *, source: str) -> set[Outcome]:
        """Give the outcomes of a node's row."""
        return {one.outcome for (s, _), one in self.rows(run).items() if s == source}

    def prober_pid(self, name: str) -> int:
        """Give the process id of a node's prober, as its RQ worker is registered."""
        wait_until(lambda: len(self.prober_pids(name)) == 1, f"{name} has one prober")
        return next(iter(self.prober_pids(name)))

    def prober_pids(self, name: str) -> set[int]:
        """Give the process ids of a node's probers, dead ones that RQ still knows included."""
        key = keyspace.queue_workers_key(keyspace.node_queue(name))
        workers = cast("set[bytes]", self.connection.smembers(key))
        return {int(worker.decode().split("-")[-2]) for worker in workers}

    def horse_pid(self, name: str) -> int:
        """Give the process id of the work-horse in which a node measures."""
        prober = self.prober_pid(name)
        wait_until(lambda: bool(children_of(prober)), f"the prober of {name} has a work-horse")
        return children_of(prober)[0]

    @staticmethod
    def seconds() -> float:
        """Give the time that heartbeats and rows are on: a lab has one clock."""
        return time.time()

    def close(self) -> None:
        """Close the connection; the lab ends the rest."""
        self.connection.close()


M = TypeVar("M", bound=LabMesh)
OfMesh = Callable[[M], None]
Test = Callable[..., None]


class Command:
    """A command that runs beside the test."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Refer to the process."""
        self.process = process

    def first_line(self) -> dict[str, Any]:
        """Wait for the first JSON line."""
        assert self.process.stdout is not None
        line: dict[str, Any] = json.loads(self.process.stdout.readline())
        return line

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self, timeout_s: float = ENDED_S) -> Said:
        """Wait for its end, and give what it said after the first line, if that was taken."""
        out, err = self.process.communicate(timeout=timeout_s)
        return Said(self.process.returncode, _json_lines(out.decode()), err.decode())


def together(nodes: int, *, persist: Persist = "nothing") -> Callable[[OfMesh[LabMesh]], Test]:
    """Make a test of what is to hold in a mesh of so many nodes; it runs beside the others."""
    return on_its_own(partial(mesh_of, nodes, persist=persist))


def on_its_own(make: Callable[[], AbstractContextManager[M]]) -> Callable[[OfMesh[M]], Test]:
    """Make a test of a function that takes a mesh; a failure shows the logs of its workers."""

    def decorate(check: OfMesh[M]) -> Test:
        def body(item: pytest.Function) -> None:
            with ExitStack() as stack:
                with place():
                    mesh = stack.enter_context(make())
                try:
                    check(mesh)
                except BaseException:
                    item.add_report_section("call", "logs of the workers", mesh.logs())
                    raise

        @beside(body)
        def test(outcome: Callable[[], None]) -> None:
            outcome()

        test.place_as = check  # type: ignore[attr-defined]  # where pytest says that it is
        return test

    return decorate


@contextmanager
def mesh_of(nodes: int, **lab: Any) -> Iterator[LabMesh]:
    """Make a lab with a Redis and a live worker on each node, until the block ends."""
    with Lab(nodes, redis=True, **lab) as made:
        mesh = LabMesh(made)
        try:
            mesh.start_all()
            yield mesh
        finally:
            mesh.close()


def children_of(pid: int) -> list[int]:
    """Give the live child processes of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            state, parent = _state_and_parent(entry)
            if parent == pid and state not in "ZX":
                found.append(int(entry.name))
    return found


def _state_and_parent(entry: Path) -> tuple[str, int]:
    try:
        state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return state, int(parent)


def _json_lines(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
