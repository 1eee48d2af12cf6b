"""
A mesh to be mistreated: workers, a collector into a CSV, and the lockers of a PTZJEPA beside it.

A service manager is part of it, as on a real node: a worker or a collector that has ended by itself
or was killed is started again by `tend`.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import redis
from forked import START
from lab import namespaces
from lab.commands import run as run_tool
from lab.mesh import LabMesh, OfMesh, Test, children_of, on_its_own
from lab.net import Lab
from lab.node import Node
from lab.redis_server import Persist
from waiting import wait_until

from chaos.clock import NodeClock, build
from chaos.lockers import HeldLockers
from coordinator.results.results import read
from worker.model.measurement import Measurement
from worker.wire import keyspace, liveness

#: A service manager starts again what has ended no sooner than this (systemd: RestartSec).
RESTART_S = 1.0
#: All of a node's state, or a CSV, on a disk of its own.
DISK_KIB = 256
DEVICE = "ptzmesh-chaos"
#: While a Redis stands still, what is due is done nearly in time.
QUICK_S = 0.3
#: SIGTERM is answered within 10 s.
STOP_S = 12.0
#: The processes of all meshes that wait beside each other start at once.
BEGIN_S = 150.0


@dataclass
class Trigger:
    """A command `ptzmesh run` on a machine, whose output is in a file."""

    process: subprocess.Popen[bytes]
    file: Path
    options: Sequence[str]
    was_killed: bool = False

    @property
    def run(self) -> str | None:
        """The id of its run, when it has said one."""
        with suppress(json.JSONDecodeError, IndexError, KeyError):
            return str(json.loads(self.file.read_text().splitlines()[0])["run"])
        return None


class Service:
    """
    What `tend` keeps running.

    Attributes:
        process: Its present process.
        codes: Exit codes of those before.
    """

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        """Start it."""
        self._start = start
        self.codes: list[int] = []
        self.ended_at: float | None = None
        self.start()

    def start(self) -> None:
        """Start it, again."""
        self.ended_at, self.started_at = None, time.monotonic()
        self.process = self._start()

    def tend(self) -> None:
        """Start it again when it ended a while ago."""
        code = self.process.poll()
        if code is None:
            return
        if self.ended_at is None:
            self.ended_at = time.monotonic()
            self.codes.append(code)
        elif time.monotonic() - self.ended_at >= RESTART_S:
            self.start()


class ChaosMesh(LabMesh):
    """
    Workers on all nodes of a lab but the last, which is the desk of a person.

    Attributes:
        nodes: The machines that are nodes of the mesh.
        desk: Runs the collector, and some of the commands.
        csv: The collector's file.
        quick: A connection that does not wait for a Redis that stands still.
        lockers: Keys of a PTZJEPA on the same Redis, held all the time.
        persist: What its Redis keeps over a restart.
        clocks: The wall clock of each node, when asked for.
        triggers: The commands that started runs.
        known_runs: Ids of all runs that were ever seen.
        losses: When Redis was down, and which runs it had when it came back with less than before.
    """

    def __init__(self, lab: Lab, *, persist: Persist = "always", clocks: bool = False) -> None:
        """Refer to the lab; nothing is started yet."""
        super().__init__(lab)
        self.persist = persist
        *self.nodes, self.desk = lab.nodes
        self.quick = redis.Redis.from_url(lab.redis.socket_url, socket_timeout=QUICK_S)
        self.csv = lab.directory / "csv" / "network_metrics.csv"
        self.csv.parent.mkdir()
        self.lockers = HeldLockers(lab.redis.socket_url)
        self.services: dict[str, Service] = {}
        self.triggers: list[Trigger] = []
        self.known_runs: set[str] = set()
        self.losses: list[tuple[datetime, set[str]]] = []
        self.disks: list[Path] = []
        library = build(lab.directory) if clocks else None
        self.clocks = {
            node.name: NodeClock(library, lab.directory / f"clock-{node.name}")
            for node in self.nodes
            if library is not None
        }

    def begin(self) -> None:
        """Start everything, and wait until all nodes are alive and the collector has its group."""
        self.lockers.hold()
        for node in self.nodes:
            self.start_service(node)
        self.start_collector()
        names = [node.name for node in self.nodes]
        self.wait_until_alive(*names, deadline_s=BEGIN_S)
        wait_until(lambda: self.group() is not None, "the collector has its group", BEGIN_S)

    def start_service(self, node: Node) -> None:
        """Start the worker of a node, and keep it running."""
        clock = self.clocks.get(node.name)

        def start() -> subprocess.Popen[bytes]:
            return self.start(node, prefix=clock.prefix if clock else ())

        self.services[node.name] = Service(start)

    def start_collector(self) -> None:
        """Start the collector on the desk, and keep it running."""

        def start() -> subprocess.Popen[bytes]:
            argv = [*START, "collect", "--follow", "--csv", str(self.csv)]
            return self.desk.start(argv, env=self.env, log=self.log("collector"))

        self.services["collector"] = Service(start)

    def tend(self) -> None:
        """Start again what has ended a while ago, as a service manager does; note all runs."""
        for service in self.services.values():
            service.tend()
        self.note_runs()

    def note_runs(self, connection: redis.Redis | None = None) -> None:
        """Remember the runs that Redis knows, for as long as it does; `quick` asks but once."""
        with suppress(redis.RedisError):
            self.known_runs |= self.runs_in_redis(connection or self.quick)
        self.known_runs |= {one.run for one in self.triggers if one.run is not None}

    def runs_in_redis(self, connection: redis.Redis) -> set[str]:
        """Give the ids of the runs that Redis knows now."""
        runs: Any = connection.zrange(keyspace.RUNS, 0, -1)
        return {run.decode() for run in runs}

    def kill_redis(self) -> None:
        """Kill a Redis that will come back with less than it had."""
        self.note_runs()
        self.lab.redis.kill()
        self._down_at = datetime.now(timezone.utc)

    def start_redis(self) -> None:
        """Start the Redis that `kill_redis` has killed."""
        self.lab.redis.start()
        self.losses.append((self._down_at, self.runs_in_redis(self.connection)))

    @property
    def gone_runs(self) -> set[str]:
        """
        The known runs that a Redis lost with its data.

        By the time in their ids: a command may say its run's id only after Redis has lost it.
        """
        return {
            run
            for run in self.known_runs
            if any(begun_at(run) < down_at and run not in kept for down_at, kept in self.losses)
        }

    @property
    def snapshot(self) -> Path:
        """What a Redis that keeps nothing by itself was asked to keep."""
        return self.lab.directory / "dump.rdb"

    def trigger(self, node: Node, *options: str) -> Trigger:
        """Start a run from a machine, with a command that follows it."""
        file = self.lab.directory / f"trigger-{len(self.triggers)}"
        argv = [*START, "run", "--json", "--new", *options]
        process = node.start(argv, env=self.env, log=file)
        self.triggers.append(Trigger(process, file, options))
        return self.triggers[-1]

    def tended(self, condition: Callable[[], bool]) -> Callable[[], bool]:
        """Wrap a condition so that services are tended while it is waited for."""

        def look() -> bool:
            self.tend()
            return condition()

        return look

    def group(self) -> dict[str, Any] | None:
        """Give the collector's consumer group; None when there is none."""
        try:
            groups: Any = self.connection.xinfo_groups(keyspace.RESULTS)
        except redis.ResponseError:
            return None
        return groups[0] if groups else None

    def child_pid(self, name: str, role: str) -> int | None:
        """Give the process id of a node's prober or responder; None when it has none now."""
        children = sorted(children_of(self.workers[name].pid))
        queues = {"prober": keyspace.node_queue, "responder": keyspace.serve_queue}
        key = keyspace.queue_workers_key(queues[role](name))
        with suppress(redis.RedisError):
            known: Any = self.quick.smembers(key)
            pids = {int(worker.decode().split("-")[-2]) for worker in known}
            return next((pid for pid in children if pid in pids), None)
        # Redis does not answer: the prober is forked first.
        return children[role == "responder"] if len(children) == 2 else None

    def is_heard(self, name: str, within_s: float) -> bool:
        """Tell whether a node's present process runs and has sent a heartbeat lately."""
        service = self.services[name]
        silent_s = min(within_s, time.monotonic() - service.started_at)
        return (
            service.process.poll() is None and liveness.silent_s(self.connection, name) < silent_s
        )

    def pings(self, run: str) -> list[Measurement]:
        """Give the ping rows of a run."""
        return [one for _, one in read(self.connection, run=run) if one.probe == "ping"]

    def disk(self, folder: Path) -> None:
        """Put a folder on a small disk of its own."""
        folder.mkdir(exist_ok=True)
        options = f"size={DISK_KIB}k"
        run_tool(["mount", "-t", "tmpfs", "-o", options, DEVICE, str(folder)])
        self.disks.append(folder)

    def stop(self) -> dict[str, int]:
        """End workers and collector in order; give their exit codes, None when one was killed."""
        for service in self.services.values():
            service.process.terminate()
        codes = {}
        give_up_at = time.monotonic() + STOP_S
        for name, service in self.services.items():
            codes[name] = service.process.wait(max(0.1, give_up_at - time.monotonic()))
        self.services.clear()
        return codes

    def left_over(self) -> dict[int, str]:
        """Give what still runs on any machine but Redis', by process id."""
        pids = namespaces.pids_inside([node.namespace for node in self.lab.nodes])
        return {pid: command_line(pid) for pid in pids}

    def close(self) -> None:
        """Take the disks away, after whatever uses them."""
        for node in self.lab.nodes:
            node.kill_all()
        for folder in self.disks:
            run_tool(["umount", "--lazy", str(folder)], check=False)
        self.lockers.close()
        self.quick.close()
        super().close()

    def logs(self) -> str:
        """Give the end of each log, the collector's and the commands' too."""
        texts = {one.file.name: one.file.read_text() for one in self.triggers}
        if self.log("collector").exists():
            texts["collector"] = self.log("collector").read_text()
        more = "\n".join(f"--- {name}\n{text[-2000:]}" for name, text in texts.items())
        return f"{super().logs()}\n{more}"


def begun_at(run: str) -> datetime:
    """Give the time in a run's id."""
    stamp = run.partition("-")[0]
    return datetime.strptime(stamp, "%Y%m%dT%H%M%S%f").replace(tzinfo=timezone.utc)


def forget_disks_of_the_dead() -> None:
    """Take away the disks of labs whose process was killed, before their folders are swept."""
    for line in Path("/proc/mounts").read_text().splitlines():
        device, folder, *_ = line.split()
        owner = re.search(r"/ptzlab-(\d+)-", folder)
        if device == DEVICE and owner and not Path("/proc", owner[1]).exists():
            run_tool(["umount", "--lazy", folder], check=False)


def command_line(pid: int) -> str:
    """Give the command line of a process; empty when it has gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


@contextmanager
def chaos_mesh(
    nodes: int,
    *,
    persist: Persist = "always",
    clocks: bool = False,
    disks: Sequence[str] = (),
) -> Iterator[ChaosMesh]:
    """
    Make a mesh with its collector and lockers, until the block ends.

    Args:
        nodes: How many nodes have a worker; one more machine is the desk.
        persist: What Redis keeps over a restart.
        clocks: Give each node a wall clock of its own.
        disks: Nodes whose state, or `csv`, is on a small disk of its own.
    """
    forget_disks_of_the_dead()
    with Lab(nodes + 1, redis=True, persist=persist) as lab:
        mesh = ChaosMesh(lab, persist=persist, clocks=clocks)
        try:
            for name in disks:
                mesh.disk(mesh.csv.parent if name == "csv" else mesh.state_dir(name))
            mesh.begin()
            yield mesh
        finally:
            mesh.close()


def together(nodes: int, **options: Any) -> Callable[[OfMesh[ChaosMesh]], Test]:
    """Make a test of what is to hold in such a mesh; it runs beside the others of its module."""
    return on_its_own(partial(chaos_mesh, nodes, **options))
