"""
Paths that swallow large packets: how much passes is found to the byte, and the advice helps.

The links of the lab carry each packet by itself: joined by segmentation offload, packets that are
small enough would be swallowed, too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from lab.iperf3_runs import asked_of, run_client, server
from lab.mesh import LabMesh, Said, mesh_of
from lab.net import Lab
from lab.node import Node
from lab.test_doctor import firewall

pytestmark = pytest.mark.lab

ASK = """
import json, sys
from worker.probes.mtu.echo import echo_mtu
found = echo_mtu(sys.argv[1])
print(json.dumps([found.largest_bytes, found.smallest_lost_bytes, found.fate.value, found.is_hole]))
"""
ASK_NODE = """
import json, sys
from worker.wire.connection import server
from worker.identity.sizes import path_mtu
found = path_mtu(server.connect(sys.argv[1]), "n0", "n1", sys.argv[2], 65000, lambda: False)
print(json.dumps([found.largest_bytes, found.is_hole, found.direction.value]))
"""
UDP = "meta l4proto udp drop"
LARGE_ECHOES = "icmp type echo-request meta length > 1000 drop"
WHOLE = [1500, None, "passed", False]


@pytest.fixture(scope="module")
def three() -> Iterator[LabMesh]:
    with mesh_of(3) as mesh:
        yield mesh


@pytest.fixture
def lab(three: LabMesh) -> Iterator[Lab]:
    yield three.lab
    three.lab.clear()


def asked(node: Node, address: str) -> Any:
    return json.loads(node.run([sys.executable, "-c", ASK, address]).stdout)


@pytest.mark.parametrize(("ways", "family"), [("there", 4), ("back", 6), ("both", 4)])
def test_largest_packet_that_passes_is_found_to_the_byte(lab: Lab, ways: str, family: int) -> None:
    a, b, _ = lab.nodes
    address = b.address if family == 4 else b.address6
    assert asked(a, address) == WHOLE
    if ways != "back":
        lab.swallow(a, b, 1300)
    if ways != "there":
        lab.swallow(b, a, 1287 if ways == "back" else 1400)
    largest = 1287 if ways == "back" else 1300
    assert asked(a, address) == [largest, largest + 1, "silent", True]


@pytest.mark.parametrize(
    ("there", "back", "rule", "expected"),
    [
        (1300, None, None, [1300, True, "there"]),
        (None, 1300, None, [1300, True, "back"]),
        (1400, 1300, None, [1300, True, "either"]),
        (1300, None, UDP, [1300, True, "either"]),
        (None, None, LARGE_ECHOES, [1500, False, "there"]),
    ],
)
def test_node_that_answers_datagrams_tells_which_way(
    lab: Lab, there: int | None, back: int | None, rule: str | None, expected: Any
) -> None:
    a, b, _ = lab.nodes
    lab.swallow(a, b, there)
    lab.swallow(b, a, back)
    with firewall(b, rule) if rule else nullcontext():
        argv = [sys.executable, "-c", ASK_NODE, lab.redis_url, b.address]
        assert json.loads(a.run(argv).stdout) == expected


def test_loss_is_no_hole_and_hides_none(lab: Lab) -> None:
    a, b, _ = lab.nodes
    lab.loss(a, b, 20)
    assert asked(a, b.address) == WHOLE
    lab.swallow(a, b, 700)
    assert asked(a, b.address) == [700, 701, "silent", True]


def test_ipv6_that_swallows_what_every_link_must_pass_is_found(lab: Lab) -> None:
    a, b, _ = lab.nodes
    lab.swallow(a, b, 1100)
    assert asked(a, b.address6) == [1100, 1101, "silent", True]


def test_router_that_says_too_big_leaves_no_hole(lab: Lab) -> None:
    a, router, b = lab.nodes
    b.run(["ip", "address", "add", "10.78.0.1/32", "dev", "lo"])
    router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    via = ["dev", "eth0", "mtu", "lock", "1200"]
    router.run(["ip", "route", "add", "10.78.0.1/32", "via", b.address, *via])
    a.run(["ip", "route", "add", "10.78.0.1/32", "via", router.address])
    assert asked(a, "10.78.0.1") == [1200, 1201, "too_big", False]


def test_silence_is_no_hole(lab: Lab) -> None:
    a, b, _ = lab.nodes
    lab.cut(a, b)
    assert asked(a, b.address) == [None, None, "passed", False]


@pytest.mark.parametrize(
    ("family", "options"),
    [
        (4, {"reverse": True}),
        (6, {}),
        (4, {"udp": True, "bitrate_mbps": 4}),
        pytest.param(4, {"bidir": True, "parallel": 8}, marks=pytest.mark.long),
    ],
)
def test_test_without_data_says_what_passes(lab: Lab, family: int, options: Any) -> None:
    a, b, _ = lab.nodes
    lab.swallow(a, b, 1300)
    lab.swallow(b, a, 1300)
    near, far = (Node(one.name, one.namespace, i + 1) for i, one in enumerate((a, b)))
    if family == 6:
        near.address, far.address = a.address6, b.address6
    with server(far) as (_, port):
        found = run_client(near, asked_of(near, far, port, duration_s=1, **options))
    mss = 1260 if family == 4 else 1240
    for one in found:
        assert one["outcome"] == "unreachable"
        assert one["error"].startswith("packets of up to 1300 bytes pass between near and far, ")
        assert (
            f"set MTU 1300 on the VPN or link that carries them, or clamp TCP's MSS to {mss}"
            in (one["error"])
        )
        assert one["path_mtu_bytes"] == 1300


def between(mesh: LabMesh) -> tuple[Said, dict[str, Any]]:
    said = mesh.cli(mesh.lab.nodes[2], "doctor", "--between", "n0", "n1", "--json")
    return said, {line["check"]: line for line in said.lines if line["status"] != "ok"}


def test_each_advice_of_doctor_helps(three: LabMesh, lab: Lab) -> None:
    source, target, _ = lab.nodes
    lab.swallow(source, target, 1300)
    said, failed = between(three)
    assert said.code == 4
    assert set(failed) == {"iperf3 n0 -> n1"}  # pings and handshakes are small
    check = failed["iperf3 n0 -> n1"]
    assert check["message"] == (
        "unreachable: packets of up to 1300 bytes pass from n0 to n1, larger ones vanish "
        "without a word"
    )
    where, clamp, link = parts(check["fix"])
    assert where == "on n1"
    for advice, undo in (
        (clamp, clamp.replace("-A", "-D")),
        (link.replace("INTERFACE", "eth0"), "ip link set dev eth0 mtu 1500"),
    ):
        target.run(advice.split())
        said, failed = between(three)
        assert (said.code, failed) == (0, {}), said.lines
        target.run(undo.split())


def parts(fix: str) -> tuple[str, str, str]:
    where, _, commands = fix.partition(": sudo ")
    clamp, _, link = commands.partition("; or, on the VPN's interface there: sudo ")
    return where, clamp, link


def test_way_to_redis_that_swallows_long_replies_is_no_matter_of_redis(
    lab: Lab, three: LabMesh
) -> None:
    server, asker = lab.redis_node, lab.nodes[2]
    lab.swallow(server, asker, 1300)
    said = three.cli(asker, "doctor", "--json")
    assert said.code == 3
    check = said.lines[0]
    assert check["message"].startswith(
        "packets of up to 1300 bytes pass between here and Redis at "
    )
    assert check["fix"].startswith(f"here, on the interface that `ip route get {server.address}`")
    advice = check["fix"].partition(": sudo ")[2].replace("INTERFACE", "eth0")
    asker.run(advice.split())
    fixed = three.cli(asker, "doctor", "--json")
    asker.run(["ip", "link", "set", "dev", "eth0", "mtu", "1500"])
    assert next(one for one in fixed.lines if one["check"] == "reachable")["status"] == "ok"
