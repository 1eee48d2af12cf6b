"""`ptzmesh doctor --between`: what a firewall between two nodes lets through, and what fixes it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.mesh import LabMesh, Said, mesh_of
from lab.node import Node

pytestmark = pytest.mark.lab

PORTS = "5201-5216"
RULE = "on n1: sudo ufw allow proto tcp from 10.77.0.1 to any port 5201:5216; if that is so: "
DROP = """table inet firewall {{
  chain in {{
    type filter hook {} priority 0
    {}
  }}
}}
"""


@pytest.fixture(scope="module")
def three() -> Iterator[LabMesh]:
    with mesh_of(3) as mesh:
        yield mesh


@contextmanager
def firewall(node: Node, rule: str, hook: str = "input") -> Iterator[None]:
    """Have a node's own firewall follow a rule until the block ends."""
    node.run(["nft", "-f", "-"], stdin=DROP.format(hook, rule))
    try:
        yield
    finally:
        node.run(["nft", "delete", "table", "inet", "firewall"])


def between(mesh: LabMesh) -> tuple[Said, dict[str, str], dict[str, str]]:
    """Ask from a third node; give what it said, and each check's status and fix."""
    said = mesh.cli(mesh.lab.nodes[2], "doctor", "--between", "n0", "n1", "--json")
    status = {line["check"]: line["status"] for line in said.lines}
    return said, status, {line["check"]: line["fix"] for line in said.lines}


def failed(status: dict[str, str]) -> set[str]:
    return {name for name, one in status.items() if one != "ok"}


def test_nodes_that_reach_each_other_have_six_checks_that_are_fine(three: LabMesh) -> None:
    said, status, _ = between(three)
    assert said.code == 0, said.err
    assert status == {
        f"{what} {way}": "ok"
        for what in ("ping", "tcp", "iperf3")
        for way in ("n0 -> n1", "n1 -> n0")
    }


def test_a_dropped_range_of_ports_fails_one_way_with_the_rule_that_opens_it(
    three: LabMesh,
) -> None:
    node = three.lab.nodes[1]
    begun = time.monotonic()
    with firewall(node, f"tcp dport {PORTS} drop"):
        said, status, fix = between(three)
    assert said.code == 4
    assert failed(status) == {"tcp n0 -> n1", "iperf3 n0 -> n1"}
    assert fix["tcp n0 -> n1"] == fix["iperf3 n0 -> n1"]
    assert fix["tcp n0 -> n1"].startswith(RULE)
    assert time.monotonic() - begun < 100  # the kernel would try for two minutes


@pytest.mark.long
def test_a_range_that_is_half_open_is_found(three: LabMesh) -> None:
    with firewall(three.lab.nodes[1], "tcp dport 5209-5216 drop"):
        _, status, _ = between(three)
    assert failed(status) == {"tcp n0 -> n1"}


def test_a_range_that_is_rejected_fails_by_iperf3(three: LabMesh) -> None:
    rule = f"tcp dport {PORTS} reject with tcp reset"
    with firewall(three.lab.nodes[1], rule):
        _, status, fix = between(three)
    # A refused handshake is what a closed port answers, too: only the test tells.
    assert failed(status) == {"iperf3 n0 -> n1"}
    assert fix["iperf3 n0 -> n1"].startswith(RULE)


def test_dropped_echoes_fail_and_the_rest_is_tried(three: LabMesh) -> None:
    with firewall(three.lab.nodes[0], "icmp type echo-request drop"):
        _, status, fix = between(three)
    assert failed(status) == {"ping n1 -> n0"}
    assert "on n0" in fix["ping n1 -> n0"]


@pytest.mark.long
def test_a_range_that_is_prohibited_is_no_matter_of_routes(three: LabMesh) -> None:
    rule = f"tcp dport {PORTS} reject with icmp type admin-prohibited"
    with firewall(three.lab.nodes[1], rule):
        _, status, fix = between(three)
    assert failed(status) == {"tcp n0 -> n1", "iperf3 n0 -> n1"}
    assert all(fix[name].startswith(RULE) for name in failed(status))


def test_a_firewall_of_the_source_is_named_beside_that_of_the_target(three: LabMesh) -> None:
    rule = f"tcp dport {PORTS} reject"
    with firewall(three.lab.nodes[0], rule, hook="output"):
        _, status, fix = between(three)
    assert "iperf3 n0 -> n1" in failed(status)
    assert "if that is so: the firewall of n0, or one between" in fix["iperf3 n0 -> n1"]


@pytest.mark.parametrize("route", [None, pytest.param("unreachable", marks=pytest.mark.long)])
def test_a_way_that_passes_nothing_is_a_matter_of_routes_and_addresses(
    three: LabMesh, route: str | None
) -> None:
    source, target, _ = three.lab.nodes
    if route is None:
        three.lab.cut(source, target)
    else:
        source.run(["ip", "route", "add", route, f"{target.address}/32"])
    try:
        _, status, fix = between(three)
    finally:
        three.lab.clear()
        if route is not None:
            source.run(["ip", "route", "delete", route, f"{target.address}/32"])
    assert {"ping n0 -> n1", "tcp n0 -> n1", "iperf3 n0 -> n1"} <= failed(status)
    for name in ("ping n0 -> n1", "tcp n0 -> n1", "iperf3 n0 -> n1"):
        assert fix[name].startswith("nothing passes: on n0: ip route get 10.77.0.2; on n1: is ")


def test_what_nodes_lack_themselves_is_no_matter_of_the_way(three: LabMesh) -> None:
    """One that may not ping, and two that both take no connections."""
    _, one, other = three.lab.nodes
    mute = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"]
    three.start(other, "--no-accept", name="mute", prefix=mute)
    three.start(one, "--no-accept", name="shy")
    three.wait_until_alive("mute", "shy")
    said = three.cli(other, "doctor", "--between", "mute", "shy", "--json")
    status = {line["check"]: line["status"] for line in said.lines}
    fix = {line["check"]: line["fix"] for line in said.lines}
    assert status["ping shy -> mute"] == "ok"
    assert fix["ping mute -> shy"].startswith("on mute: sudo sysctl -w net.ipv4.ping_group_range")
    for name in ("iperf3 mute -> shy", "iperf3 shy -> mute"):
        assert status[name] == "fail"
        assert fix[name].startswith("start one of ")
        assert "without --no-accept" in fix[name]


def test_a_way_to_redis_that_is_forbidden_or_silent_is_no_matter_of_redis(three: LabMesh) -> None:
    asker, server = three.lab.nodes[2], three.lab.redis_node
    route = ["prohibit", f"{server.address}/32"]
    asker.run(["ip", "route", "add", *route])
    forbidden = three.cli(asker, "doctor", "--json")
    asker.run(["ip", "route", "delete", *route])
    three.lab.cut(asker, server)
    silent = three.cli(asker, "doctor", "--json")
    three.lab.heal(asker, server)
    assert (forbidden.code, silent.code) == (3, 3)
    assert forbidden.lines[0]["fix"].startswith("a route or a firewall forbids the way to it")
    assert "no firewall or VPN between drops what is sent" in silent.lines[0]["fix"]
