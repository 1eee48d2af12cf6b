"""The image takes part in a mesh, with what an engine grants it and no more."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from lab import namespaces
from lab.mesh import LabMesh, children_of
from lab.net import Lab
from lab.node import Node
from waiting import wait_until

from deploy.container import Container, Rights
from deploy.image import Image
from worker.wire.registry import read_nodes

pytestmark = [pytest.mark.long, pytest.mark.lab]

#: A container is stopped within this time; Docker kills what has not ended by then.
STOP_S = 10.0
#: A heartbeat counts for 30 s, and the next is at most 10 s away; the rest is for a busy machine.
SILENT_S = 120.0
#: Several containers start at once.
START_S = 120.0

PROBES = ("ping", "tcp", "redis", "throughput", "udp")

#: Fails where no socket takes SO_TIMESTAMPNS (35), by which the kernel's times of replies come.
STAMPS = "import socket; socket.socket(type=socket.SOCK_DGRAM).setsockopt(socket.SOL_SOCKET, 35, 1)"

OPEN, CLOSED = "0 2147483647", "1 0"

#: What a container is granted, its network's ping_group_range, and the socket that it gets by that.
GRANTS = {
    "cap-add": (Rights(), CLOSED, "raw"),
    "cap-add-sysctl": (Rights(), OPEN, "raw"),
    "cap-add-no-new-privileges": (Rights(no_new_privileges=True), CLOSED, "none"),
    "podman": (Rights(no_new_privileges=True, ambient=True), CLOSED, "raw"),
    "sysctl": (Rights(net_raw=False), OPEN, "datagram"),
    "sysctl-no-new-privileges": (Rights(no_new_privileges=True), OPEN, "datagram"),
    "nothing": (Rights(net_raw=False, no_new_privileges=True), CLOSED, "none"),
}


@contextmanager
def mesh_in(nodes: int) -> Iterator[LabMesh]:
    """Make a lab with a Redis, and no worker yet."""
    with Lab(nodes, redis=True) as lab:
        mesh = LabMesh(lab)
        try:
            yield mesh
        finally:
            mesh.close()


def container_on(mesh: LabMesh, image: Image, node: Node, name: str, **more: object) -> Container:
    """Start a worker in a container on a node."""
    container = Container(
        image=image,
        node=node,
        folder=mesh.lab.directory,
        name=name,
        variables=mesh.env,
        **more,  # type: ignore[arg-type] # `rights`, or nothing
    )
    container.start()
    return container


@pytest.fixture(scope="module")
def pair(lab_image: Image) -> Iterator[tuple[LabMesh, Container]]:
    """A container `cam-1`, named by its host name alone, and an ordinary node `n1`."""
    with mesh_in(2) as mesh:
        container = container_on(mesh, lab_image, mesh.lab.nodes[0], "cam-1")
        mesh.start(mesh.lab.nodes[1])
        try:
            mesh.wait_until_alive("cam-1", "n1", deadline_s=START_S)
        except AssertionError:
            pytest.fail(container.log.read_text())
        yield mesh, container


def commands_of(node: Node, program: str) -> list[int]:
    """Give the processes of a node whose command line has a word that ends so."""
    found = []
    for pid in namespaces.pids_inside([node.namespace]):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(word.endswith(program.encode()) for word in words):
                found.append(pid)
    return found


def parent_and_state(pid: int) -> tuple[int, str]:
    """Give a process's parent and its state, as proc(5) has them."""
    state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    return int(parent), state


def zombies_below(node: Node) -> list[int]:
    """Give the ended processes that a live process of the node has not waited for."""
    alive = set(namespaces.pids_inside([node.namespace]))
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parent, state = parent_and_state(int(entry.name))
            if state == "Z" and parent in alive:
                found.append(int(entry.name))
    return found


def skip_where_an_emulator_cannot_ping(container: Container) -> None:
    """Skip where a system call that the echo engine needs is emulated without it."""
    if container.image.architecture.is_native:
        return
    asked = container.run("/opt/ptzmesh/bin/python3", "-c", STAMPS)
    if asked.returncode != 0:
        pytest.skip(f"qemu does not hand SO_TIMESTAMPNS on: {asked.stderr.splitlines()[-1]}")


@pytest.mark.parametrize("probe", PROBES)
def test_container_and_an_ordinary_node_measure_each_other(
    pair: tuple[LabMesh, Container], probe: str
) -> None:
    mesh, container = pair
    if probe == "ping":
        skip_where_an_emulator_cannot_ping(container)
    options = ["--count", "5", "--duration", "1", "--probe", probe]
    said = mesh.cli(mesh.lab.nodes[1], "run", "--json", *options)
    assert said.code == 0, said.err
    other = {"cam-1": "n1", "n1": "cam-1"}
    assert {ends: row["outcome"] for ends, row in said.rows.items()} == {
        (name, "redis" if probe == "redis" else other[name]): "ok" for name in other
    }
    if probe == "throughput":
        assert all(row["throughput_mbps"] > 1 for row in said.rows.values())


def test_killed_job_leaves_nothing_behind_in_the_container(
    pair: tuple[LabMesh, Container],
) -> None:
    mesh, container = pair
    node = container.node
    mesh.detach(mesh.lab.nodes[1], "--probe", "throughput", "--duration", "10")
    wait_until(lambda: bool(commands_of(node, "iperf3")), "iperf3 runs in the container")
    for horse in {parent_and_state(pid)[0] for pid in commands_of(node, "iperf3")}:
        os.kill(horse, signal.SIGKILL)
    # What nobody waits for stays for ever.
    wait_until(lambda: not commands_of(node, "iperf3"), "iperf3 has ended")
    wait_until(lambda: not zombies_below(node), "what has ended is reaped")


def test_health_check_tells_a_working_node_from_one_that_hangs_or_never_was(
    pair: tuple[LabMesh, Container],
) -> None:
    mesh, container = pair
    wait_until(lambda: container.health().returncode == 0, "it is healthy")
    never = container.run("env", "PTZMESH_WORKER_NAME=cam-0", "ptzmesh", "doctor", "--quick")
    assert never.returncode != 0
    assert "cam-0" in never.stdout
    (supervisor,) = children_of(container.pid)
    os.kill(supervisor, signal.SIGSTOP)
    try:
        wait_until(lambda: "cam-1" not in mesh.alive(), "it is silent", SILENT_S, 1.0)
        assert container.health().returncode != 0
    finally:
        os.kill(supervisor, signal.SIGCONT)


def test_container_that_was_paused_goes_on(pair: tuple[LabMesh, Container]) -> None:
    _, container = pair
    (supervisor,) = children_of(container.pid)
    os.kill(supervisor, signal.SIGSTOP)
    time.sleep(1.5)  # longer than the supervisor waits for a signal at a time
    os.kill(supervisor, signal.SIGCONT)
    wait_until(lambda: container.health().returncode == 0, "it is healthy again", SILENT_S, 1.0)
    assert children_of(container.pid)[:1] == [supervisor]


def test_container_that_is_stopped_ends_in_time_and_leaves_the_mesh(
    lab_image: Image,
) -> None:
    with mesh_in(2) as mesh:
        container = container_on(mesh, lab_image, mesh.lab.nodes[0], "cam-9")
        mesh.start(mesh.lab.nodes[1])
        mesh.wait_until_alive("cam-9", "n1", deadline_s=START_S)
        mesh.wait_until_begun(mesh.detach(mesh.lab.nodes[1], "--count", "300"), "cam-9")
        os.kill(container.pid, signal.SIGTERM)
        asked = time.monotonic()
        assert container.process is not None
        assert container.process.wait(STOP_S) == 0, container.log.read_text()
        assert time.monotonic() - asked < STOP_S
        assert "cam-9" not in mesh.alive(), "it did not say that it ends"
        assert list(namespaces.pids_inside([container.node.namespace])) == []


def test_what_a_container_is_granted_decides_on_its_icmp_socket(lab_image: Image) -> None:
    with mesh_in(len(GRANTS)) as mesh:
        for node, (name, (rights, group_range, _)) in zip(
            mesh.lab.nodes, GRANTS.items(), strict=True
        ):
            node.run(["sysctl", "-w", f"net.ipv4.ping_group_range={group_range}"])
            container_on(mesh, lab_image, node, name, rights=rights)
        mesh.wait_until_alive(*GRANTS, deadline_s=START_S)
        found = {node.name: node.icmp for node in read_nodes(mesh.connection)}
        assert found == {name: kind for name, (_, _, kind) in GRANTS.items()}
