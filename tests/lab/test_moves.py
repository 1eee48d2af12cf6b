"""Nodes that change while they run, in the lab: address, link, rights; what they say stays true."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from waiting import wait_until

from coordinator.results.events import read_events
from coordinator.results.results import read
from lab.commands import ip_batch
from lab.mesh import LabMesh, together
from lab.mesh_runs import UNPRIVILEGED
from lab.node import Node
from lab.transfer_runs import ENDS_S, TCP, ended_ok, held, iperf3_on, rows_of
from worker.model.measurement import Measurement, Outcome
from worker.publish.last_heard import OVERDUE_S
from worker.wire import keyspace, liveness
from worker.wire.node_record import Node as Registered
from worker.wire.registry import read_nodes

pytestmark = pytest.mark.lab

#: What changed is told within this time; a machine that is busy with fifty workers needs more.
TOLD_S = 30.0 + 30.0
ONE_WAY = ("--from", "n0", "--to", "n1")


def readdress(node: Node, old: str, new: str) -> None:
    """Give a node another address, as a new lease of DHCP does."""
    ip_batch(
        [f"address del {old} dev eth0", f"address add {new} dev eth0"], namespace=node.namespace
    )


def record(mesh: LabMesh, name: str) -> Registered:
    return next(node for node in read_nodes(mesh.connection) if node.name == name)


def started(mesh: LabMesh, name: str) -> object:
    return mesh.connection.hget(keyspace.node_key(name), "since")


def wait_until_at(mesh: LabMesh, name: str, address: str) -> None:
    wait_until(lambda: record(mesh, name).address == address, f"{name} is at {address}", TOLD_S)


def row(mesh: LabMesh, run: str, probe: str) -> Measurement:
    """Give the one result of a probe in a run, which ends."""
    mesh.wait_until_ended(run, ENDS_S)
    (found,) = [one for _, one in read(mesh.connection, run=run) if one.probe == probe]
    return found


def moves(mesh: LabMesh, what: str = "address") -> list[tuple[str, str]]:
    return [(one.old, one.new) for _, one in read_events(mesh.connection) if one.what == what]


@together(3)
def test_node_that_gets_another_address_at_rest_or_before_its_test_is_measured_there(
    mesh: LabMesh,
) -> None:
    n0, n1, _ = mesh.lab.nodes

    # At rest.
    readdress(n1, "10.77.0.2/24", "10.77.0.102/24")
    wait_until_at(mesh, "n1", "10.77.0.102")
    found = row(mesh, mesh.detach(n0, *ONE_WAY, "--count", "3"), "ping")
    assert (found.outcome, found.address) == (Outcome.OK, "10.77.0.102"), found.error
    wait_until(lambda: moves(mesh) == [("10.77.0.2", "10.77.0.102")], "it is an event")

    # While a test waits for its turn.
    with held(mesh, "n1", "n2"):
        run = mesh.detach(n0, *ONE_WAY, "--duration", "1", "--bitrate", "8", *TCP)
        wait_until(lambda: bool(mesh.connection.hlen(keyspace.WAITING)), "the test waits")
        readdress(n1, "10.77.0.102/24", "10.77.0.103/24")
        wait_until_at(mesh, "n1", "10.77.0.103")
    assert ended_ok(mesh, run)["n0", "n1"].address == "10.77.0.103"


@together(2)
def test_node_that_moves_in_a_ping_phase_is_where_it_is_in_the_next(mesh: LabMesh) -> None:
    n0, n1 = mesh.lab.nodes
    plan = (*ONE_WAY, "--count", "350", "--probe", "ping", "--probe", "tcp")
    run = mesh.detach(n0, *plan)
    mesh.wait_until_begun(run, "n0")
    readdress(n1, "10.77.0.2/24", "10.77.0.102/24")
    pinged, shaken = row(mesh, run, "ping"), row(mesh, run, "tcp")
    assert (pinged.address, pinged.detail.received < 350) == ("10.77.0.2", True)
    assert (shaken.outcome, shaken.address) == (Outcome.OK, "10.77.0.102"), shaken.error


@together(3)
def test_node_that_is_started_at_the_address_of_another_is_not_that_one(mesh: LabMesh) -> None:
    n0, n1, n2 = mesh.lab.nodes
    # The plan knows nothing of n2, at whose address it then says to be.
    plan = (*ONE_WAY, "--count", "350", "--probe", "ping", "--probe", "tcp", *TCP)
    run = mesh.detach(n0, *plan, "--duration", "1")
    mesh.wait_until_begun(run, "n0")
    mesh.workers["n1"].terminate()
    mesh.workers["n1"].wait()
    mesh.start(n1, "--address", n2.address)
    wait_until_at(mesh, "n1", n2.address)
    assert row(mesh, run, "ping").address == n1.address
    for probe in ("tcp", "throughput"):
        found = row(mesh, run, probe)
        assert (found.outcome, found.address) == (Outcome.WRONG_HOST, n2.address), found.error
        assert found.error.startswith(f"n2 answers at {n2.address}, not n1"), found.error
        assert (found.latency_ms, found.throughput_mbps) == (None, None)


@together(2)
def test_iperf3_that_comes_and_goes_is_followed_without_a_restart(mesh: LabMesh) -> None:
    n0, n1 = mesh.lab.nodes
    program, found = mesh.lab.directory / "bin/iperf3", shutil.which("iperf3")
    assert found is not None
    program.parent.mkdir()
    program.symlink_to(found)
    mesh.start(n1, name="tool", prefix=("env", f"PATH={program.parent}"))
    mesh.wait_until_alive("tool")
    began, version = started(mesh, "tool"), record(mesh, "tool").iperf3
    assert version.startswith("3.")
    plan = ("--new", "--nodes", "n0,tool", "--duration", "1", "--bitrate", "8", *TCP)

    program.unlink()
    wait_until(lambda: record(mesh, "tool").iperf3 == "", "it is missed", TOLD_S)
    run = mesh.detach(n0, *plan)
    mesh.wait_until_ended(run, ENDS_S)
    for measured in rows_of(mesh, run).values():  # one of them is performed by n0
        assert measured.outcome is Outcome.TOOL_MISSING, measured.error
        assert "iperf3 is not on PATH" in measured.error
    wait_until(lambda: moves(mesh, "iperf3") == [(version, "")], "it is an event")

    program.symlink_to(found)
    wait_until(lambda: record(mesh, "tool").iperf3 == version, "it is found", TOLD_S)
    ended_ok(mesh, mesh.detach(n0, *plan))
    # What flaps is told once a minute: have that be over.
    mesh.connection.hdel(keyspace.node_key("tool"), "told_at:iperf3")
    wait_until(lambda: moves(mesh, "iperf3")[1:] == [("", version)], "it is an event", TOLD_S)
    assert started(mesh, "tool") == began


@together(2)
def test_node_that_moves_in_a_test_or_loses_its_link_comes_back_where_it_is(mesh: LabMesh) -> None:
    n0, n1 = mesh.lab.nodes
    run = mesh.detach(n0, *ONE_WAY, "--duration", "5", "--bitrate", "8", *TCP)
    wait_until(lambda: bool(iperf3_on(n0)), "the test is under way", ENDS_S)
    readdress(n1, "10.77.0.2/24", "10.77.0.102/24")
    found = row(mesh, run, "throughput")
    assert (found.outcome is Outcome.OK, found.address) == (False, "10.77.0.2")
    wait_until_at(mesh, "n1", "10.77.0.102")
    test = (*ONE_WAY, "--duration", "1", "--bitrate", "8", *TCP)
    assert ended_ok(mesh, mesh.detach(n0, *test))["n0", "n1"].address == "10.77.0.102"

    ip_batch(["link set eth0 down"], namespace=n1.namespace)
    wait_until(lambda: "Redis is away" in mesh.log("n1").read_text(), "it noticed")
    readdress(n1, "10.77.0.102/24", "10.77.0.103/24")
    ip_batch(["link set eth0 up"], namespace=n1.namespace)
    wait_until_at(mesh, "n1", "10.77.0.103")
    found = row(mesh, mesh.detach(n0, *ONE_WAY, "--count", "3"), "ping")
    assert (found.outcome, found.address) == (Outcome.OK, "10.77.0.103"), found.error


@together(2)
def test_node_that_vanished_a_moment_ago_was_last_heard_so_long_ago(mesh: LabMesh) -> None:
    n0, n1 = mesh.lab.nodes
    mesh.lab.unplug(n1)
    wait_until(lambda: liveness.silent_s(mesh.connection, "n1") > OVERDUE_S, "it is missed")
    run = mesh.detach(n0, *ONE_WAY, "--count", "3", "--probe", "ping", "--probe", "tcp")
    for probe in ("ping", "tcp"):
        found = row(mesh, run, probe)
        assert found.outcome in (Outcome.NO_REPLY, Outcome.UNREACHABLE), found.error
        assert re.search(r", and n1 was last heard [0-9]+ s ago", found.error), found.error


@contextmanager
def knows_redis(mesh: LabMesh, node: Node) -> Iterator[str]:
    """Give a node a name for Redis, of both families; give the URL."""
    folder = Path("/etc/netns", node.namespace)
    folder.mkdir(parents=True)
    redis = mesh.lab.redis_node
    (folder / "hosts").write_text(f"{redis.address} redis.lab\n{redis.address6} redis.lab\n")
    try:
        yield "redis://redis.lab:6379/0"
    finally:
        shutil.rmtree(folder)


@together(2)
def test_node_goes_from_ipv4_to_ipv6_and_one_loses_its_right_to_ping(mesh: LabMesh) -> None:
    n0, n1 = mesh.lab.nodes
    with knows_redis(mesh, n1) as url:
        ip_batch([f"address del {n1.address6}/64 dev eth0"], namespace=n1.namespace)
        mesh.start(n1, name="both", prefix=("env", f"PTZMESH_REDIS_URL={url}"))
        mesh.lab.allow_datagram_icmp(n0)
        mesh.state_dir("weak").mkdir()
        mesh.state_dir("weak").chmod(0o777)
        mesh.lab.directory.chmod(0o755)
        mesh.start(n0, name="weak", prefix=UNPRIVILEGED)
        mesh.wait_until_alive("both", "weak")
        assert (record(mesh, "both").address, record(mesh, "weak").icmp) == (n1.address, "datagram")

        n0.run(["sysctl", "-qw", "net.ipv4.ping_group_range=1 0"])
        new = f"{n1.address6}/64 dev eth0 nodad"
        ip_batch(
            [f"address del {n1.address}/24 dev eth0", f"address add {new}"], namespace=n1.namespace
        )
        wait_until_at(mesh, "both", n1.address6)
        wait_until(lambda: record(mesh, "weak").icmp == "none", "it may not ping", TOLD_S)
    two = ("--from", "weak", "--to", "both", "--count", "3")
    found = row(mesh, mesh.detach(n0, *two), "ping")
    assert (found.outcome, found.address) == (Outcome.TOOL_MISSING, n1.address6), found.error
    found = row(mesh, mesh.detach(n0, "--from", "n0", *two[2:]), "ping")
    assert (found.outcome, found.address) == (Outcome.OK, n1.address6), found.error
    assert (n1.address, n1.address6) in moves(mesh)
    assert moves(mesh, "icmp") == [("datagram", "none")]
