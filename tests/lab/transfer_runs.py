"""
Runs of tests with two ends in the lab: their rows, their processes, and what they leave behind.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from shutil import which
from typing import Any, cast

from waiting import wait_until

from coordinator.results.results import read
from lab import namespaces
from lab.mesh import LabMesh, Pair, Said
from lab.node import Node
from lab.redis_server import PORT as REDIS_PORT
from worker.model.measurement import Measurement, Outcome
from worker.transfer.leases import LEASE_TTL_S, End, acquire, new_token, release, renew
from worker.wire import keyspace, scripts
from worker.wire.keyspace import lease_key

TCP = ("--probe", "throughput")
#: All tests at once of a mesh of eight leave the processor idle most of the time.
EASY = ("--bitrate", "10")
OK = {Outcome.OK}

#: A lease whose holder died is free by then: its time to live, and a look of a busy machine.
FREE_S = LEASE_TTL_S + 15.0
#: A run ends by then, however busy the machine, also when a source falls silent in the middle.
ENDS_S = 240.0
#: Length of a test in which something is killed.
TEST_S = 4
#: A test that has lasted so long, and whose connections are there, moves data.
BEGUN_S = 0.5
#: What is spent is counted by the UTC day: a test of it needs that much of one day.
OF_ONE_DAY_S = 180.0

#: In place of iperf3 on a node's PATH: writes down when each iperf3 began and ended. What is killed
#: in the middle writes nothing.
TRACED_IPERF3 = """#!/bin/bash
[ "$1" = --version ] && exec {iperf3} "$@"
begun=$EPOCHREALTIME
{iperf3} "$@"
code=$?
echo "{name} $begun $EPOCHREALTIME $*" >> {trace}
exit $code
"""


@dataclass(frozen=True)
class Span:
    """When something ran on one node or on two; in seconds of the lab's one clock."""

    begin: float
    end: float
    nodes: frozenset[str]


class TracedMesh(LabMesh):
    """A mesh whose nodes write down when each iperf3 began and ended."""

    @property
    def trace(self) -> Path:
        """The file in which they do."""
        return self.lab.directory / "iperf3.trace"

    def start(
        self, node: Node, *options: str, name: str | None = None, prefix: Sequence[str] = ()
    ) -> Any:
        """Start a worker that finds the traced iperf3."""
        folder = self.lab.directory / f"bin-{node.name}"
        folder.mkdir()
        script = folder / "iperf3"
        text = TRACED_IPERF3.format(iperf3=which("iperf3"), name=node.name, trace=self.trace)
        script.write_text(text)
        script.chmod(0o755)
        path = f"PATH={folder}:{os.environ['PATH']}"
        return super().start(node, *options, name=name, prefix=("env", path, *prefix))

    def spans(self, role: str) -> list[Span]:
        """Give the lives of all clients (on both their nodes), or of all servers."""
        names = {node.address: node.name for node in self.lab.nodes}
        found = []
        for line in self.trace.read_text().splitlines():
            name, begun, ended, said, *argv = line.split()
            if said == f"--{role}":
                nodes = {name} | ({names[argv[0]]} if role == "client" else set())
                found.append(Span(float(begun), float(ended), frozenset(nodes)))
        return found


def measured(mesh: LabMesh, *options: str) -> dict[Pair, dict[str, Any]]:
    """Run a plan that must succeed; give what its last probe's lines say, one a pair."""
    said = mesh.cli(mesh.lab.nodes[2], "run", "--json", *options)
    assert said.code == 0, said.err
    probe = said.lines[0]["probes"][-1]
    lines = [line for line in said.lines if line.get("probe") == probe]
    rows = {(line["source"], line["target"]): line for line in lines}
    assert len(rows) == len(lines) == len(pairs_of(mesh, said.run))
    return rows


def took_s(said: Said) -> float:
    """Give how long a run lasted, the commands that started and followed it left out."""
    return float(said.lines[-1]["closed"] - said.lines[-1]["created"])


def pairs_of(mesh: LabMesh, run: str) -> list[Pair]:
    """Give the pairs that a run is to measure."""
    plan = mesh.state(run).plan
    return [(plan.nodes[s].name, plan.nodes[t].name) for s, t in plan.node_pairs()]


def rows_of(mesh: LabMesh, run: str, probe: str = "throughput") -> dict[Pair, Measurement]:
    """Give one probe's rows in the stream; exactly one for each pair, or fail."""
    found = [one for _, one in read(mesh.connection, run=run) if one.probe == probe]
    assert Counter((one.source, one.target) for one in found) == Counter(pairs_of(mesh, run))
    return {(one.source, one.target): one for one in found}


def ended_ok(mesh: LabMesh, run: str) -> dict[Pair, Measurement]:
    """Wait for the end of a run that must succeed, and give its rows."""
    state = mesh.wait_until_ended(run, ENDS_S)
    rows = rows_of(mesh, run)
    assert (state.status, state.failed) == ("done", 0), {row.error for row in rows.values()}
    return rows


def assert_ends_whole(
    mesh: LabMesh, run: str, pairs: Iterable[Pair], excused: Iterable[Outcome]
) -> None:
    """See a run end with a row a pair, ok but for some pairs, and nothing left of its tests."""
    assert mesh.wait_until_ended(run, ENDS_S).status == "done"
    may_be = {pair: {*excused} for pair in pairs}
    for pair, row in rows_of(mesh, run).items():
        assert row.outcome in may_be.get(pair, OK), (pair, row.outcome, row.error)
    wait_until(lambda: lease_keys(mesh) == [], "no lease is left", FREE_S)
    wait_until(lambda: not any(map(iperf3_on, mesh.lab.nodes)), "no iperf3 is left", FREE_S)


@contextmanager
def in_a_test(mesh: LabMesh, duration_s: int = TEST_S) -> Iterator[tuple[str, Pair]]:
    """Start a run of all nodes; give it with the pair of which a test stands still: see below."""
    options = ("--duration", str(duration_s), "--bitrate", "8", *TCP)
    run = mesh.detach(mesh.lab.nodes[0], *options)
    with a_test_stopped(mesh, duration_s) as pair:
        yield run, pair


@contextmanager
def a_test_stopped(
    mesh: LabMesh, duration_s: int = TEST_S, but: Pair | None = None
) -> Iterator[Pair]:
    """
    Stop the client of a test in the middle of its data, until the block ends.

    So whatever is killed in the block is killed in a test, however long that takes. Gives who
    connected to whom.
    """
    found: list[tuple[Pair, int]] = []

    def is_stopped() -> bool:
        clients = [client for client in clients_in_a_test(mesh) if client[0] != but]
        found[:] = [client for client in clients if stopped(client[1], duration_s)][:1]
        return bool(found)

    wait_until(is_stopped, "a test is in its middle", ENDS_S)
    ((pair, client),) = found
    try:
        yield pair
    finally:
        with suppress(ProcessLookupError):
            os.kill(client, signal.SIGCONT)


def clients_in_a_test(mesh: LabMesh) -> Iterator[tuple[Pair, int]]:
    """Give who connected to whom in each test that moves data, and the client's process."""
    names = {node.address: node.name for node in mesh.lab.nodes}
    for node in mesh.lab.nodes:
        for pid in iperf3_on(node):
            argv = command_of(pid)
            if "--client" not in argv or age_s(pid) < BEGUN_S:
                continue
            # One connection for its orders, and one for its data.
            if established(pid, int(argv[argv.index("--port") + 1])) == 2:
                yield (node.name, names[argv[argv.index("--client") + 1]]), pid


def stopped(client: int, duration_s: float) -> bool:
    """Stop a client; False, and it goes on, when its data may have come to their end before."""
    try:
        os.kill(client, signal.SIGSTOP)
        wait_until(lambda: process_state(client) in ("T", "Z", ""), "a client stands still")
        if process_state(client) == "T" and age_s(client) < duration_s:
            return True
        os.kill(client, signal.SIGCONT)
    except ProcessLookupError:
        pass
    return False


def established(pid: int, port: int) -> int:
    """Give how many TCP connections a process's machine has to a port."""
    try:
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    except OSError:  # it has gone
        return 0
    connections = [line.split()[2:4] for line in lines]
    return sum(far.endswith(f":{port:04X}") and state == "01" for far, state in connections)


def process_state(pid: int) -> str:
    """Give the letter that proc(5) has for the state of a process; empty when it has gone."""
    return (_stat(pid) or [""])[0]


def age_s(pid: int) -> float:
    """Give how long a process has run; 0 when it has gone."""
    stat = _stat(pid)
    if not stat:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(stat[19]) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Give what the kernel says of a process, from its state on; nothing when it has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def span_of(row: Measurement) -> Span:
    """Give the life of a test's client, as its record says it."""
    begin = row.started_at.timestamp()
    return Span(begin, begin + row.detail.test_s, frozenset((row.source, row.target)))


def ended_at(row: Measurement) -> float:
    """Give when a ping was over."""
    return row.started_at.timestamp() + float(row.detail.elapsed_s)


def overlap(a: Span, b: Span) -> bool:
    """Tell whether there is a moment at which both ran."""
    return a.begin < b.end and b.begin < a.end


def clashes(spans: Iterable[Span]) -> list[tuple[Span, Span]]:
    """Give all that ran at once on one node."""
    return [(a, b) for a, b in combinations(spans, 2) if a.nodes & b.nodes and overlap(a, b)]


@contextmanager
def shaped(mesh: LabMesh, name: str, **limits: float) -> Iterator[None]:
    """Shape a node's link until the block ends."""
    mesh.lab.shape(node_of(mesh, name), **limits)
    try:
        yield
    finally:
        mesh.lab.shape(node_of(mesh, name))


def node_of(mesh: LabMesh, name: str) -> Node:
    """Give the machine of a name."""
    return next(node for node in mesh.lab.nodes if node.name == name)


def counted_bytes(node: Node) -> int:
    """Give the bytes of all frames that a node has sent and received."""
    stats = json.loads(node.run(["ip", "-s", "-j", "link", "show", "eth0"]).stdout)[0]["stats64"]
    return int(stats["rx"]["bytes"] + stats["tx"]["bytes"])


def wait_until_moved(node: Node, count: int) -> None:
    """Wait until a node's link has carried so many bytes."""
    wait_until(lambda: counted_bytes(node) > count, f"data flows at {node.name}", every_s=0.01)


def iperf3_on(node: Node) -> list[int]:
    """Give the process ids of every iperf3 that runs on a node."""
    pids = namespaces.pids_inside([node.namespace])
    return [pid for pid in pids if Path(command_of(pid)[0]).name == "iperf3"]


def command_of(pid: int) -> list[str]:
    """Give the argv of a process; one empty word when it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return [""]


def kill(*pids: int) -> None:
    """SIGKILL all of these at once; one that has gone with another is no error."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def responder_pid(mesh: LabMesh, name: str) -> int:
    """Give the process id of a node's responder, as its RQ worker is registered."""
    key = keyspace.queue_workers_key(keyspace.serve_queue(name))
    (worker,) = cast("set[bytes]", mesh.connection.smembers(key))
    return int(worker.decode().split("-")[-2])


def wait_for_a_day(mesh: LabMesh) -> None:
    """Wait for the next UTC day when little is left of this one."""
    left_s = 86400 - scripts.redis_seconds(mesh.connection) % 86400
    if left_s < OF_ONE_DAY_S:
        time.sleep(left_s + 1)


def wait_until_back(mesh: LabMesh, name: str, since: float) -> None:
    """
    Wait until a node that was away waits for its jobs again.

    Redis, which knows nothing of a cable, may still have connections that the node has given up,
    and give them what comes next.
    """
    node = node_of(mesh, name)
    connections = ["ss", "-Htn", "state", "established", "dport", "=", f":{REDIS_PORT}"]

    def takes_jobs() -> bool:
        clients = [c for c in mesh.connection.client_list() if "b" in c["flags"]]
        waiting = {c["addr"] for c in clients if c["addr"].startswith(f"{node.address}:")}
        held = {text.split()[2] for text in node.run(connections).stdout.splitlines()}
        heard = cast("float | None", mesh.connection.zscore(keyspace.NODES, name)) or 0.0
        return heard > since and len(waiting & held) >= 2  # its prober and its responder

    wait_until(takes_jobs, f"{name} waits for jobs again", ENDS_S)


def lease_keys(mesh: LabMesh) -> list[bytes]:
    """Give what is held, on a Redis that is the lab's own."""
    return list(mesh.connection.scan_iter(lease_key("*")))


def lease_of(mesh: LabMesh, name: str) -> bytes:
    """Give the token that holds a node."""
    token = cast("bytes | None", mesh.connection.get(lease_key(name)))
    assert token is not None
    return token


def held_by(mesh: LabMesh, token: bytes) -> bool:
    """Tell whether a token still holds some node."""
    names = [lease_key(node.name) for node in mesh.lab.nodes]
    return token in mesh.connection.mget(names)


@contextmanager
def held(mesh: LabMesh, near: str, far: str) -> Iterator[None]:
    """Hold both ends of a pair, as a test would, until the block ends."""
    lease = acquire(mesh.connection, new_token(), End(name=near), [End(name=far)]).lease
    assert lease is not None
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(LEASE_TTL_S / 6):
            renew(mesh.connection, lease)

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        release(mesh.connection, lease)
