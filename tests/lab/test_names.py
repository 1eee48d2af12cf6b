"""
Names and link-local addresses in the lab: who is measured, who is refused, and who waits for whom.

Whoever answers for a name here is hostile or silent; the nodes are real, and so is their resolver.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE

import pytest
from programs import worker_argv
from waiting import wait_until

from coordinator import Mesh
from lab.commands import ip_batch
from lab.mesh import LabMesh
from lab.name_server import NXDOMAIN, SERVFAIL, SILENT, NameServer, asking, etc
from lab.net import Lab
from lab.node import Node
from worker.model.measurement import Measurement, Outcome
from worker.model.options import PingOptions, TcpOptions, ThroughputOptions
from worker.model.plan import Plan, PlannedNode
from worker.model.probe import with_options
from worker.wire import keyspace

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]

LOOPBACK = "127.0.0.1"
GOOD, GOOD6 = "10.77.0.2", "fd77::2"
#: Something of n0's own listens there, and on loopback only.
SECRET_PORT = 8080

#: Of a node that has this address only by the time that DNS knows it.
MOVES = {"A": [*4 * [GOOD], "10.77.0.1"]}
ACCEPTS = (b"moved", b"accepts")

#: What is said of each name, and what its row may then have: an outcome, and a word of its error
#: or the address that was measured.
NAMES = {
    "good.lan": ({"A": [GOOD], "AAAA": [GOOD6]}, Outcome.OK, GOOD),
    "only6.lan": ({"AAAA": [GOOD6]}, Outcome.OK, GOOD6),
    "no-aaaa.lan": ({"A": [GOOD], "AAAA": [SILENT]}, Outcome.OK, GOOD),
    "nat64.lan": ({"AAAA": ["64:ff9b::7f00:1"]}, Outcome.DENIED, "loopback"),
    "6to4.lan": ({"AAAA": ["2002:7f00:1::1"]}, Outcome.DENIED, "loopback"),
    "mapped.lan": ({"AAAA": ["::ffff:127.0.0.1"]}, Outcome.DENIED, "loopback"),
    "home.lan": ({"A": [LOOPBACK]}, Outcome.DENIED, "loopback"),
    "self.lan": ({"A": ["10.77.0.1"]}, Outcome.WRONG_HOST, "10.77.0.1 is an address of n0 itself"),
    "home6.lan": ({"A": [GOOD], "AAAA": ["::1"]}, Outcome.DENIED, "loopback"),
    "both.lan": ({"A": [f"{GOOD} {LOOPBACK}"]}, Outcome.DENIED, "loopback"),
    "zero.lan": ({"A": ["0.0.0.0"]}, Outcome.DENIED, "unspecified"),  # noqa: S104
    "zero6.lan": ({"AAAA": ["::"]}, Outcome.DENIED, "unspecified"),
    "many.lan": ({"A": ["10.77.0.255"]}, Outcome.DENIED, "broadcast"),
    # A look-up after the judged one would be told where the node's own services are.
    "later.lan": ({"A": [NXDOMAIN, LOOPBACK], "AAAA": [NXDOMAIN]}, Outcome.UNRESOLVED, "resolve"),
    "fails.lan": (
        {"A": [SERVFAIL, SERVFAIL, LOOPBACK], "AAAA": [NXDOMAIN]},
        Outcome.UNRESOLVED,
        "no name server answered",
    ),
    "rebinds.lan": ({"A": [GOOD, LOOPBACK], "AAAA": [""]}, Outcome.OK, GOOD),
    "silent.lan": (
        {"A": [SILENT], "AAAA": [SILENT]},
        Outcome.UNRESOLVED,
        "no name server answered",
    ),
}


@pytest.fixture(scope="module")
def named() -> Iterator[tuple[LabMesh, NameServer]]:
    """A node n0 that asks a hostile name server, and n1, which other nodes' names may lead to."""
    with Lab(2, redis=True) as made, ExitStack() as stack:
        server = NameServer(
            made,
            made.redis_node,
            {"moves.lan": MOVES, **{name: says for name, (says, *_) in NAMES.items()}},
        )
        stack.enter_context(etc(made.nodes[0], resolv_conf=asking(server)))
        mesh = LabMesh(made)
        stack.callback(mesh.close)
        # Who is on one site is not asked who it is, and several nodes may be on one machine, n1.
        for node in made.nodes:
            mesh.start(node, "--label", "site=lab")
        mesh.wait_until_alive("n0", "n1")
        listen = f"import socket; s = socket.create_server(('{LOOPBACK}', {SECRET_PORT}))"
        made.nodes[0].start(["python3", "-c", f"{listen}\nwhile True: s.accept()"])
        made.nodes[0].wait_until_listening(SECRET_PORT)
        boot, netns = mesh.connection.hmget(keyspace.node_key("n1"), ["boot", "netns"])
        n1 = {"boot": boot, "netns": netns}
        for name in NAMES:
            record = {"address": name, "labels": '{"site": "lab"}', **n1}
            mesh.connection.hset(keyspace.node_key(name), mapping=record)
        yield mesh, server


OPTIONS = {
    "ping": PingOptions(count=5, interval_s=0.1, wait_s=1.0),
    "tcp": TcpOptions(count=2, interval_s=0.1, wait_s=1.0, port=SECRET_PORT),
    "throughput": ThroughputOptions(duration_s=1.0, bitrate_mbps=1.0),
}


def rows_of(
    mesh: LabMesh,
    probe: str,
    names: list[str],
    family: int | None = None,
    source: str = "n0",
) -> dict[str, Measurement]:
    """Have a node measure n1, numerically, and nodes that are registered by these names."""
    there = mesh.connection.hget(keyspace.node_key(source), "address")
    nodes = [PlannedNode(name=source, address=str(there, "ascii"))]
    nodes += [PlannedNode(name="n1", address=GOOD)]
    nodes += [PlannedNode(name=name, address=name) for name in names]
    plan = Plan(
        nodes=tuple(nodes), sources=(0,), targets=tuple(range(1, len(nodes))), family=family,
        options=with_options([probe], OPTIONS),
    )  # fmt: skip
    run = Mesh(mesh.lab.redis.socket_url).start(plan, join=False).id
    mesh.wait_until_ended(run)
    return {target: row for (_, target), row in mesh.rows(run).items()}


def test_a_name_is_looked_up_once_judged_and_measured_by_address(
    named: tuple[LabMesh, NameServer],
) -> None:
    mesh, server = named
    rows = rows_of(mesh, "ping", list(NAMES))
    for name, (_, outcome, word) in NAMES.items():
        row = rows[name]
        assert row.outcome is outcome, (name, row.error)
        assert word == row.address if outcome is Outcome.OK else word in row.error, (name, row)
        assert row.address == {Outcome.OK: word, Outcome.WRONG_HOST: "10.77.0.1"}.get(outcome, name)
    assert server.asked()["A rebinds.lan"] == 1
    # Who has an address at once waits for no name server; the others come after.
    given_up_at = rows["silent.lan"].started_at
    assert max(rows[name].started_at for name in ("n1", "good.lan", "no-aaaa.lan")) < given_up_at
    either = rows_of(mesh, "ping", ["good.lan", "home.lan"], family=6)
    assert either["good.lan"].address == GOOD6
    assert "home.lan does not resolve to an IPv6 address" in either["home.lan"].error
    # The second time it says where n0's own services are.
    again = rows_of(mesh, "ping", ["rebinds.lan", "later.lan", "fails.lan"])
    assert again.pop("n1").outcome is Outcome.OK
    assert {row.outcome for row in again.values()} == {Outcome.DENIED}


def test_nobody_scans_the_loopback_of_a_node_by_a_name(
    named: tuple[LabMesh, NameServer],
) -> None:
    mesh, _ = named
    forbidden = [name for name, (_, outcome, _) in NAMES.items() if outcome is Outcome.DENIED]
    rows = rows_of(mesh, "tcp", forbidden)
    assert rows.pop("n1").detail.refusals > 0
    assert {row.outcome for row in rows.values()} == {Outcome.DENIED}
    rows = rows_of(mesh, "throughput", [*forbidden[:2], "silent.lan"])
    assert rows.pop("silent.lan").outcome is Outcome.UNRESOLVED
    assert rows.pop("n1").outcome is Outcome.OK
    assert {row.outcome for row in rows.values()} == {Outcome.DENIED}


def test_node_that_reaches_redis_by_loopback_is_not_for_that_at_home_there(
    named: tuple[LabMesh, NameServer],
) -> None:
    mesh, _ = named
    hub = mesh.lab.redis_node
    env = {"PTZMESH_REDIS_URL": "redis://127.0.0.1:6379"}
    argv = worker_argv("hub", mesh.state_dir("hub"))
    hub.start(argv, env=env, log=mesh.log("hub"))
    mesh.wait_until_alive("hub")
    mesh.connection.hset(keyspace.node_key("127.0.0.5"), "address", "127.0.0.5")
    rows = rows_of(mesh, "tcp", ["127.0.0.5"], source="hub")
    assert rows["127.0.0.5"].outcome is Outcome.DENIED
    assert rows["n1"].outcome is Outcome.OK
    # Nor does a test from elsewhere take its own loopback for that of the hub.
    folder = ("--no-plot", "--out", str(mesh.lab.directory))
    said = mesh.cli(mesh.lab.nodes[1], "test", "hub", "-d", "1", "-i", "1", *folder)
    assert said.code == 2
    assert (
        "target (hub) is registered at 127.0.0.1, which from here is this machine itself"
        in said.err
    )


def worker_says(node: Node, mesh: LabMesh, folder: Path, *options: str) -> tuple[int, str]:
    done = node.run(worker_argv("other", folder, *options), env=mesh.env, check=False)
    return done.returncode, done.stderr


def test_node_whose_name_leads_to_it_only_later_accepts_connections_from_then_on(
    named: tuple[LabMesh, NameServer],
) -> None:
    mesh, _ = named
    here = mesh.lab.nodes[0]
    options = ("--address", "moves.lan", "--ports", "5301-5316")
    mesh.start(here, *options, name="moved")
    mesh.wait_until_alive("moved")

    def changes() -> list[tuple[bytes, bytes]]:
        entries = [fields for _, fields in mesh.connection.xrange(keyspace.RESULTS)]
        told = [one for one in entries if (one.get(b"node"), one.get(b"what")) == ACCEPTS]
        return [(one[b"old"], one[b"new"]) for one in told]

    wait_until(lambda: changes() == [(b"0", b"1")], "its name leads to it by now")
    mesh.workers["moved"].terminate()
    wait_until(lambda: "moved" not in mesh.alive(), "it has stopped")


def test_name_of_the_machine_itself_is_refused_with_what_to_say_instead(
    named: tuple[LabMesh, NameServer], tmp_path: Path
) -> None:
    mesh, _ = named
    n1 = mesh.lab.nodes[1]
    with etc(n1, hosts="127.0.0.1 localhost\n127.0.1.1 cam-7.lan cam-7\n"):
        code, said = worker_says(n1, mesh, tmp_path, "--address", "cam-7")
    assert code == 2
    assert "address (cam-7) leads to 127.0.1.1 here" in said
    assert f"leave --address out for {n1.address}" in said
    assert len(said.splitlines()) == 1


#: On the second link of n0 and n1; each end calls it otherwise.
FE80 = ("fe80::a", "fe80::b")


@pytest.fixture
def linked(named: tuple[LabMesh, NameServer]) -> Iterator[LabMesh]:
    """Two nodes on a second link, with link-local addresses there, n0 with another one on eth0."""
    mesh, _ = named
    n0, n1 = mesh.lab.nodes
    ip_batch(
        [
            f"link add wan7 type veth peer name lan0 netns {n1.namespace}",
            "link set wan7 addrgenmode none up",
            f"address add {FE80[0]}/64 dev wan7 nodad",
            "address add fe80::77/64 dev eth0 nodad",
        ],
        namespace=n0.namespace,
    )
    ip_batch(
        ["link set lan0 addrgenmode none up", f"address add {FE80[1]}/64 dev lan0 nodad"],
        namespace=n1.namespace,
    )
    n0.wait_for_links()
    n1.wait_for_links()
    wait_until_heard(n1, "lan0")
    yield mesh
    ip_batch(["link del wan7"], namespace=n0.namespace)
    ip_batch(["address del fe80::77/64 dev eth0"], namespace=n0.namespace)
    # Of the twin, which not every test has.
    ip_batch([f"address del {FE80[1]}/64 dev eth0"], namespace=n1.namespace, force=True)
    ip_batch(["neighbour flush dev eth0"], namespace=n0.namespace)


def give_twin(node: Node) -> None:
    """Give n1 its address a second time, on n0's other link."""
    ip_batch([f"address add {FE80[1]}/64 dev eth0 nodad"], namespace=node.namespace)
    wait_until_heard(node, "eth0")


def wait_until_heard(node: Node, link: str) -> None:
    """Wait until a link hears who asks for fe80::b: the kernel joins that group in its own time."""
    shown = ["ip", "-6", "maddress", "show", "dev", link]
    wait_until(lambda: "ff02::1:ff00:b" in node.run(shown).stdout, f"{link} hears of fe80::b")


def test_link_local_address_gets_the_interface_of_each_source(
    linked: LabMesh, tmp_path: Path
) -> None:
    n0, n1 = linked.lab.nodes
    code, said = worker_says(n1, linked, tmp_path, "--address", "fe80::b%eth0")
    assert code == 2
    assert "say --address fe80::b%lan0" in said
    code, said = worker_says(n1, linked, tmp_path, "--address", "fe80::99")
    assert (code, "no such interface" in said) == (2, True)

    linked.start(n0, "--address", "fe80::a", name="left")
    linked.start(n1, "--address", "fe80::b%lan0", name="right")
    linked.wait_until_alive("left", "right")
    assert linked.connection.hget(keyspace.node_key("left"), "address") == b"fe80::a%wan7"
    assert measured(linked, "--probe", "ping") == {"fe80::b%wan7", "fe80::a%lan0"}
    options = ("--probe", "throughput", "-t", "1", "-b", "1M")
    assert measured(linked, *options) == {"fe80::b%wan7", "fe80::a%lan0"}
    # Another machine of that address, on n0's other link: nobody knows which of them is meant.
    give_twin(n1)
    (row,) = ended_rows(linked, "--from", "left", "--to", "right")
    assert row.outcome is Outcome.UNRESOLVED
    assert row.error.startswith("right: fe80::b is a link-local address, and may be behind any of ")
    assert "eth0, wan7" in row.error


#: Asks for fe80::b on eth0, and says so; told to go on, it looks where that is.
LOOKS = """
from worker.host.link_local import _solicit, zoned
import socket, sys
eth0 = socket.if_nametoindex("eth0")
_solicit("fe80::b", [eth0])
print("asked", flush=True)
sys.stdin.readline()
print(zoned("fe80::b", own_zone=False))
"""


def test_neighbour_that_was_asked_for_in_vain_just_before_is_asked_for_anew(
    linked: LabMesh,
) -> None:
    n0, n1 = linked.lab.nodes
    # One question only, which nobody hears: for a second the kernel waits for its answer.
    n0.run(["sysctl", "-qw", "net.ipv6.neigh.eth0.mcast_solicit=1"])
    argv = n0.inside([sys.executable, "-c", LOOKS])
    with subprocess.Popen(argv, stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT) as looking:
        assert looking.stdout is not None
        assert looking.stdout.readline() == "asked\n"
        give_twin(n1)
        said, _ = looking.communicate("go on\n", timeout=60)
    n0.run(["sysctl", "-qw", "net.ipv6.neigh.eth0.mcast_solicit=3"])
    assert "may be behind any of eth0, wan7" in said


def measured(mesh: LabMesh, *options: str) -> set[str]:
    """Give the addresses that two nodes measured each other at."""
    rows = ended_rows(mesh, "--nodes", "left,right", *options)
    assert [row.outcome for row in rows] == [Outcome.OK] * 2, rows
    return {row.address for row in rows}


def ended_rows(mesh: LabMesh, *options: str) -> list[Measurement]:
    run = mesh.detach(mesh.lab.nodes[0], *options)
    mesh.wait_until_ended(run)
    return list(mesh.rows(run).values())
