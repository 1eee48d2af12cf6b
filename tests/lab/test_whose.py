"""
Two networks with the same private addresses, a mesh over both: no number is of another machine.

Behind n0 are `a` and `c`; behind n1 is `b`, which has the address of `a`; `d` and `d2` are two
nodes on n2.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from waiting import wait_until

from lab.behind import network_behind
from lab.mesh import LabMesh, Said
from lab.net import Lab
from lab.node import Node
from worker.wire import keyspace
from worker.wire.registry import read_nodes

pytestmark = pytest.mark.lab

TWINS = "192.168.1.100 is claimed by a, b"
NO_UDP = """table inet quiet {
  chain in {
    type filter hook input priority 0
    meta l4proto udp drop
  }
}
"""


@pytest.fixture(scope="module")
def homes() -> Iterator[tuple[LabMesh, dict[str, Node]]]:
    with (
        Lab(3, redis=True) as lab,
        network_behind(lab.nodes[0], [("a", 100), ("c", 101)]) as left,
        network_behind(lab.nodes[1], [("b", 100)]) as right,
    ):
        mesh = LabMesh(lab)
        nodes = {node.name: node for node in (*left, *right)}
        nodes["d"] = nodes["d2"] = lab.nodes[2]
        for name, node in nodes.items():
            mesh.start(node, name=name)
        mesh.wait_until_alive(*nodes)
        try:
            yield mesh, nodes
        finally:
            mesh.close()


@contextmanager
def without_udp(*nodes: Node) -> Iterator[None]:
    """Have nodes' own firewalls drop UDP, and nothing else, until the block ends."""
    for node in nodes:
        node.run(["nft", "-f", "-"], stdin=NO_UDP)
    try:
        yield
    finally:
        for node in nodes:
            node.run(["nft", "delete", "table", "inet", "quiet"])


def forget(mesh: LabMesh, *sources: str) -> None:
    """Have sources ask again, as a day later."""
    for name in sources:
        (mesh.state_dir(name) / f"{name}.verified").unlink(missing_ok=True)


def run(mesh: LabMesh, *arguments: str) -> Said:
    return mesh.cli(mesh.lab.nodes[2], "run", "--json", "--count", "3", *arguments)


def words(said: Said) -> dict[str, str]:
    """Give outcome by pair, with a `?` where who answered is not known."""
    return {
        f"{source}>{target}": row["outcome"] + ("?" if row.get("unverified") else "")
        for (source, target), row in said.rows.items()
    }


def test_every_number_is_of_the_pair_that_its_row_names(
    homes: tuple[LabMesh, dict[str, Node]],
) -> None:
    mesh, _ = homes
    said = run(mesh)
    found = words(said)
    # From where nothing but a machine of the same address answers, or the node itself.
    for pair in ("a>b", "b>a", "c>b"):
        assert found[pair] == "wrong_host"
    # Two claim that address, and none of them is to be reached from there.
    for pair in ("d>a", "d>b", "d2>a", "d2>b"):
        assert found[pair] == "unverified"
    for pair in ("a>c", "c>a", *(f"{n}>{d}" for n in "abc" for d in ("d", "d2")), "d>d2", "d2>d"):
        assert found[pair] == "ok"
    assert "ok" not in (found["b>c"], found["d>c"])
    rows = said.rows
    for ends in (("a", "b"), ("c", "b"), ("d", "a")):
        assert rows[ends]["latency_ms"] is None
        assert rows[ends]["address"] == "192.168.1.100"
    assert rows["a", "b"]["error"].startswith("192.168.1.100 is an address of a itself, not of b")
    assert rows["c", "b"]["error"].startswith("a answers at 192.168.1.100, not b")
    assert rows["d", "a"]["error"].startswith("a, b say that they have 192.168.1.100")


def test_handshakes_and_tests_go_to_no_twin_either(
    homes: tuple[LabMesh, dict[str, Node]],
) -> None:
    mesh, _ = homes
    probes = ("--probe", "tcp", "--probe", "throughput", "--duration", "1", "--bitrate", "1")
    said = mesh.cli(
        *(mesh.lab.nodes[2], "run", "--json", "--count", "3", *probes),
        *("--from", "c", "--to", "a,b,d"),
    )
    assert said.code == 4, said.err
    found = {(line["probe"], line["target"]): line for line in said.lines if "source" in line}
    assert {where: line["outcome"] for where, line in found.items()} == {
        ("tcp", "a"): "ok",
        ("tcp", "b"): "wrong_host",
        ("tcp", "d"): "ok",
        ("throughput", "a"): "ok",
        ("throughput", "b"): "wrong_host",
        ("throughput", "d"): "ok",
    }
    assert found["throughput", "b"]["throughput_mbps"] is None


def test_commands_say_who_claims_the_address_of_whom(
    homes: tuple[LabMesh, dict[str, Node]],
) -> None:
    mesh, _ = homes
    here = mesh.lab.nodes[2]
    assert TWINS in mesh.cli(here, "nodes").err
    checks = {line["check"]: line for line in mesh.cli(here, "doctor", "--json").lines}
    assert checks["addresses"]["status"] == "fail"
    assert checks["addresses"]["message"] == TWINS
    between = mesh.cli(here, "doctor", "--between", "c", "b", "--json").lines
    ping = next(line for line in between if line["check"] == "ping c -> b")
    assert ping["status"] == "fail"
    assert "a answers at 192.168.1.100, not b" in ping["message"]
    assert "ICMP" not in ping["fix"]
    times = ("--duration", "2", "--interval", "2", "--out", str(mesh.lab.directory))
    series = mesh.cli(here, "test", "b", "--nodes", "c", *times)
    assert "a answers at 192.168.1.100, not b" in series.err + str(series.lines)


def test_without_an_answer_numbers_stay_and_are_marked_where_one_node_claims_the_address(
    homes: tuple[LabMesh, dict[str, Node]],
) -> None:
    mesh, nodes = homes
    chosen = ("--from", "c", "--to", "a,d")
    assert words(run(mesh, *chosen)) == {"c>a": "ok", "c>d": "ok"}
    with without_udp(nodes["a"], nodes["d"]):
        # They have said who they are within the day.
        assert words(run(mesh, *chosen)) == {"c>a": "ok", "c>d": "ok"}
        forget(mesh, "c")
        said = run(mesh, *chosen)
        assert words(said) == {"c>a": "unverified", "c>d": "ok?"}
        # Of three echoes, as the time of one is refused where the machine is busy.
        assert said.rows["c", "d"]["packet_loss_pct"] == 0
        assert any(said.rows["c", "d"]["rtts_ms"])
    assert words(run(mesh, *chosen)) == {"c>a": "ok", "c>d": "ok"}


def test_twin_that_answers_is_no_proof_against_one_that_is_busy(
    homes: tuple[LabMesh, dict[str, Node]],
) -> None:
    mesh, _ = homes
    queue, found = keyspace.queue_workers_key(keyspace.serve_queue("b")), list[int]()

    def is_there() -> bool:
        workers = cast("set[bytes]", mesh.connection.smembers(queue))
        found[:] = [int(name.decode().split("-")[-2]) for name in workers]
        return len(found) == 1

    wait_until(is_there, "b has a responder")
    (responder,) = found
    mesh.connection.delete(keyspace.answer_key("b/"))
    os.kill(responder, signal.SIGSTOP)
    try:
        said = run(mesh, "--from", "c", "--to", "b")
    finally:
        os.kill(responder, signal.SIGCONT)
    assert words(said) == {"c>b": "unverified"}
    assert said.rows["c", "b"]["error"].startswith("a, b say that they have 192.168.1.100")


def test_nodes_of_one_machine_that_do_not_know_which_one_it_is_ask_each_other(
    homes: tuple[LabMesh, dict[str, Node]],
) -> None:
    mesh, nodes = homes
    hide = 'mount --bind /dev/null /proc/sys/kernel/random/boot_id && exec "$@"'
    for name, ports in (("g", "5301-5308"), ("h", "5309-5316")):
        prefix = ("unshare", "--mount", "sh", "-c", hide, "-")
        mesh.start(nodes["c"], "--ports", ports, name=name, prefix=prefix)
    mesh.wait_until_alive("g", "h")
    try:
        assert words(run(mesh, "--nodes", "g,h")) == {"g>h": "ok", "h>g": "ok"}
    finally:
        for name in ("g", "h"):
            mesh.workers[name].terminate()
    wait_until(lambda: not mesh.alive() & {"g", "h"}, "they have stopped")


def test_nodes_of_one_site_are_believed(homes: tuple[LabMesh, dict[str, Node]]) -> None:
    mesh, nodes = homes
    labels: dict[str, dict[str, Any]] = {"e": {"site": "roof"}, "f": {"site": "roof"}}
    for name, there in labels.items():
        mesh.start(
            nodes["c" if name == "e" else "d"], "--label", f"site={there['site']}", name=name
        )
    mesh.wait_until_alive(*labels)
    with without_udp(nodes["c"], nodes["d"]):
        said = run(mesh, "--nodes", "e,f", "--count", "3")
        assert words(said)["e>f"] == "ok"
        assert words(run(mesh, "--from", "a", "--to", "f")) == {"a>f": "ok?"}
    assert not (mesh.state_dir("e") / "e.verified").exists()
    for name in labels:
        mesh.workers[name].terminate()
    wait_until(lambda: not mesh.alive() & set(labels), "they have stopped")


def test_start_of_a_target_anew_has_it_asked_again(
    homes: tuple[LabMesh, dict[str, Node]],
) -> None:
    mesh, nodes = homes
    pair = ("--from", "c", "--to", "d2")
    assert words(run(mesh, *pair)) == {"c>d2": "ok"}
    since = {node.name: node for node in read_nodes(mesh.connection)}["d2"]
    mesh.workers["d2"].terminate()
    wait_until(lambda: "d2" not in mesh.alive(), "it has stopped")
    mesh.start(nodes["d2"], name="d2")
    mesh.wait_until_alive("d2")
    assert since.netns == {n.name: n for n in read_nodes(mesh.connection)}["d2"].netns
    with without_udp(nodes["d2"]):
        assert words(run(mesh, *pair)) == {"c>d2": "ok?"}
