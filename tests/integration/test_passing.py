"""What passes by itself at Redis is waited for: by nodes, which keep results, and by collectors."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from waiting import wait_until

from coordinator.embedded import EmbeddedServer, embedded_server
from coordinator.mesh import Mesh
from integration.docs_pages import ROOT
from integration.nodes import cli, workers
from worker.model.measurement import Outcome
from worker.probes.icmp.engine import icmp_capability
from worker.publish.outbox import outbox_path
from worker.wire import keyspace
from worker.wire.connection.away import AWAY
from worker.wire.connection.server import connect

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping"),
]

NODES = ("cam-1", "hub")


@dataclass(frozen=True)
class Running:
    """A mesh with a collector that follows."""

    server: EmbeddedServer
    folder: Path
    operator: redis.Redis
    nodes: dict[str, subprocess.Popen[bytes]]
    collector: subprocess.Popen[bytes]
    said: dict[str, int] = field(default_factory=dict)

    @property
    def csv(self) -> Path:
        return self.folder / "mesh.csv"

    def is_felt(self) -> bool:
        """Each node has met the trouble: results wait on its disk, or it says so."""
        return all(self._waits(name) or self._away_lines(name) > self.said[name] for name in NODES)

    def _waits(self, name: str) -> bool:
        path = outbox_path(self.folder / "state", name)
        return path.exists() and path.stat().st_size > 0

    def _away_lines(self, name: str) -> int:
        return (self.folder / f"{name}.log").read_text().count("Redis is away")

    def note_logs(self) -> None:
        self.said.update({name: self._away_lines(name) for name in NODES})


@pytest.fixture(scope="module")
def mesh(server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("passing")
    with embedded_server(folder / "server", binary=server_binary, unix=False) as server:
        operator = redis.Redis.from_url(server.url)
        with workers(server.url, operator, folder, NODES) as nodes:
            command = [sys.executable, "-m", "coordinator.cli", "collect", "--follow"]
            collector = subprocess.Popen(
                [*command, "--redis", server.url, "--csv", str(folder / "mesh.csv")], cwd=ROOT
            )
            # One that starts while Redis is away is told so at once.
            wait_until((folder / "mesh.csv").exists, "the collector has begun its file")
            yield Running(server, folder, operator, nodes, collector)
            collector.terminate()
            assert collector.wait(30) == 0


@contextmanager
def replica(mesh: Running) -> Iterator[str]:
    """A failover that makes it a replica; whoever is blocked is unblocked with an error."""
    mesh.operator.replicaof("127.0.0.1", "1")
    try:
        yield "read only replica"
    finally:
        mesh.operator.replicaof("NO", "ONE")


@contextmanager
def cut_off_replica(mesh: Running) -> Iterator[str]:
    mesh.operator.config_set("replica-serve-stale-data", "no")
    mesh.operator.replicaof("127.0.0.1", "1")
    try:
        yield "Link with MASTER|read only replica"
    finally:
        mesh.operator.replicaof("NO", "ONE")
        mesh.operator.config_set("replica-serve-stale-data", "yes")


@contextmanager
def disk_that_takes_no_snapshot(mesh: Running) -> Iterator[str]:
    name = mesh.operator.config_get("dbfilename")["dbfilename"]
    in_the_way = Path(mesh.operator.config_get("dir")["dir"]) / name
    in_the_way.unlink(missing_ok=True)
    (in_the_way / "x").mkdir(parents=True)
    mesh.operator.config_set("save", "900 1")
    mesh.operator.bgsave()
    wait_until(lambda: mesh.operator.info()["rdb_last_bgsave_status"] == "err", "Redis cannot save")
    try:
        yield "MISCONF"
    finally:
        (in_the_way / "x").rmdir()
        in_the_way.rmdir()
        mesh.operator.config_set("save", "")


@contextmanager
def too_few_replicas(mesh: Running) -> Iterator[str]:
    mesh.operator.config_set("min-replicas-to-write", 1)
    try:
        yield "NOREPLICAS|Not enough good replicas"
    finally:
        mesh.operator.config_set("min-replicas-to-write", 0)


@contextmanager
def endless_script(mesh: Running) -> Iterator[str]:
    mesh.operator.config_set("lua-time-limit", 1)

    def run() -> None:
        with (
            redis.Redis.from_url(mesh.server.url, socket_timeout=None) as own,
            suppress(redis.ResponseError),
        ):
            own.eval("while true do end", 0)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield "BUSY"
    finally:
        mesh.operator.script_kill()
        thread.join()
        mesh.operator.config_set("lua-time-limit", 5000)


def free_port_below(most: int) -> int:
    for port in range(20_000, most):
        with socket.socket() as one, socket.socket() as bus, suppress(OSError):
            one.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port
    raise AssertionError("no port is free")


def refusal(url: str) -> str:
    with connect(url) as ours:
        try:
            ours.set("ptzmesh:probe:nobody", 1, ex=1)
        except AWAY as exc:
            return str(exc)
    return ""


@pytest.mark.parametrize(
    "trouble",
    [
        replica,
        disk_that_takes_no_snapshot,
        endless_script,
        pytest.param(cut_off_replica, marks=pytest.mark.long),
        pytest.param(too_few_replicas, marks=pytest.mark.long),
    ],
)
def test_a_run_outlives_it(
    mesh: Running, trouble: Callable[[Running], AbstractContextManager[str]]
) -> None:
    ours = Mesh(mesh.server.url)
    mesh.note_logs()
    run = ours.run(join=False, count=20)
    begun = [f"started:0:{place}" for place in range(len(NODES))]
    wait_until(
        lambda: all(mesh.operator.hmget(keyspace.run_key(run.id), begun)), "both rows have begun"
    )
    with trouble(mesh) as word:
        wait_until(
            lambda: any(one in refusal(mesh.server.url) for one in word.split("|")),
            f"Redis refuses with {word}",
        )
        wait_until(mesh.is_felt, "both nodes have noticed")
        said = cli(mesh.server.url, "run", "--count", "1")
        assert said.returncode == 3, said.stderr
        assert "bug" not in said.stderr
    run.wait()
    assert [one.outcome for one in run.measurements()] == [Outcome.OK, Outcome.OK]
    wait_until(lambda: mesh.csv.read_text().count(run.id) == 2, "the file has both rows")
    assert mesh.collector.poll() is None
    assert all(node.poll() is None for node in mesh.nodes.values())


@pytest.mark.parametrize("command", ["EVALSHA", "SCRIPT"])
def test_a_server_without_scripts_is_one_line(
    server_binary: Path, tmp_path: Path, command: str
) -> None:
    options = (f'rename-command {command} ""',)
    with embedded_server(tmp_path, binary=server_binary, options=options) as server:
        started = cli(server.url, "worker", "--name", "a", "--address", "127.0.0.1")
        assert started.returncode == 3
        (line,) = started.stderr.strip().splitlines()
        assert "runs no Lua scripts" in line
        said = cli(server.url, "doctor")
        assert "runs no Lua scripts" in said.stdout
        assert said.returncode == 2


def test_a_cluster_is_refused_in_one_line(server_binary: Path, tmp_path: Path) -> None:
    # The bus of a cluster listens 10,000 above the port, which has no room above an ephemeral one.
    options = ("cluster-enabled yes", f"port {free_port_below(55_535)}")
    with embedded_server(tmp_path, binary=server_binary, options=options) as server:
        for command in (["run"], ["worker", "--name", "a"]):
            done = cli(server.url, *command)
            assert done.returncode == 3
            (line,) = done.stderr.strip().splitlines()
            assert "is a cluster" in line
