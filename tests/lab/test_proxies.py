"""
Proxies before the nodes of a mesh: what its runs find, and what they clear.

n0 measures; n1 and n3 are the routers on its way to n2, which is at an address behind them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from waiting import wait_until

from lab.mesh import LabMesh, mesh_of
from lab.node import Node

pytestmark = pytest.mark.lab

#: Where n2 is, and an address that is translated to it.
BEHIND, TRANSLATED = "10.99.0.3", "10.98.0.9"
PROXY = 12300
TABLE = "table ip lab {{ chain c {{ type nat hook {} priority -100\n {}\n }}\n }}\n"
#: As sshuttle's: connects to where a connection was to go (SO_ORIGINAL_DST), and passes on.
RELAY = """
import socket, struct, sys, threading
def passed_on(one, other):
    try:
        while data := one.recv(65536):
            other.sendall(data)
    except OSError:
        pass
    for end in (one, other):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
server = socket.create_server(("0.0.0.0", int(sys.argv[1])), backlog=100)
while True:
    near, _ = server.accept()
    port, packed = struct.unpack_from("!2xH4s", near.getsockopt(socket.SOL_IP, 80, 16))
    if sys.argv[2] == "hold":
        kept = globals().setdefault("kept", []); kept.append(near); continue
    try:
        far = socket.create_connection((socket.inet_ntoa(packed), port), timeout=5)
        far.settimeout(None)
    except OSError:
        near.close()
        continue
    for pair in ((near, far), (far, near)):
        threading.Thread(target=passed_on, args=pair, daemon=True).start()
"""
PROBES = ("--probe", "tcp", "--probe", "throughput", "--duration", "1", "-b", "5M", "-c", "3")


@pytest.fixture(scope="module")
def mesh() -> Iterator[LabMesh]:
    with mesh_of(4) as made:
        n0, n1, n2, n3 = made.lab.nodes
        for router in (n1, n3):
            settings = ("ip_forward=1", "conf.all.send_redirects=0", "conf.eth0.send_redirects=0")
            router.run(["sysctl", "-qw", *(f"net.ipv4.{one}" for one in settings)])
        n2.run(["ip", "address", "add", f"{BEHIND}/32", "dev", "lo"])
        for node, to in ((n0, n1), (n1, n3), (n3, n2)):
            node.run(["ip", "route", "add", "10.99.0.0/16", "via", to.address])
        n0.run(["ip", "route", "add", "10.98.0.0/16", "via", n1.address])
        made.start(n2, "--address", BEHIND, name="far")
        made.start(n2, "--address", TRANSLATED, "--ports", "5301-5310", name="translated")
        made.wait_until_alive("far", "translated")
        yield made


@contextmanager
def redirected(node: Node, hook: str, rule: str, relay: str = "") -> Iterator[None]:
    """Have a node follow a rule, and run a proxy that relays or holds, until the block ends."""
    process = node.start([sys.executable, "-c", RELAY, str(PROXY), relay]) if relay else None
    if relay:
        node.wait_until_listening(PROXY)
    node.run(["nft", "-f", "-"], stdin=TABLE.format(hook, rule))
    try:
        yield
    finally:
        node.run(["nft", "delete", "table", "ip", "lab"])
        if process is not None:
            process.kill()
            wait_until(lambda: process.poll() is not None, "the proxy is gone")


def run(mesh: LabMesh, target: str, *options: str) -> dict[str, dict[str, Any]]:
    """Measure from n0 to a node; give each probe's row."""
    asked = ("run", "--json", "--new", "--from", "n0", "--to", target, *(options or PROBES))
    said = mesh.cli(mesh.lab.nodes[0], *asked)
    rows = {line["probe"]: line for line in said.lines if "source" in line}
    assert rows, said.err + mesh.logs()
    return rows


def words(rows: dict[str, dict[str, Any]]) -> dict[str, tuple[str, Any]]:
    return {probe: (row["outcome"], row.get("hint")) for probe, row in rows.items()}


TO_FAR = f"ip daddr {BEHIND} meta l4proto tcp redirect to :{PROXY}"


def test_proxy_beyond_the_first_hop_that_relays_is_told_by_the_handshake_that_came(
    mesh: LabMesh,
) -> None:
    with redirected(mesh.lab.nodes[3], "prerouting", TO_FAR, "relay"):
        rows = run(mesh, "far")
    assert words(rows) == dict.fromkeys(("tcp", "throughput"), ("intercepted", None))
    for row in rows.values():
        assert "far got another handshake than was sent" in row["error"]
        assert (row["latency_ms"], row["throughput_mbps"]) == (None, None)


def test_proxy_beyond_the_first_hop_that_holds_is_told_by_the_node_that_saw_nothing(
    mesh: LabMesh,
) -> None:
    with redirected(mesh.lab.nodes[3], "prerouting", TO_FAR, "hold"):
        row = run(mesh, "far", "--probe", "tcp", "-c", "3")["tcp"]
    assert row["outcome"] == "intercepted", f"{row} {mesh.logs()}"
    assert "far never saw the connection" in row["error"]


def test_way_without_a_proxy_is_ok_and_what_the_node_said_holds_until_there_is_a_sign(
    mesh: LabMesh,
) -> None:
    n0 = mesh.lab.nodes[0]
    assert words(run(mesh, "far")) == dict.fromkeys(("tcp", "throughput"), ("ok", None))
    assert "|far|" in (mesh.state_dir("n0") / "n0.verified").read_text()
    with redirected(n0, "output", TO_FAR, "hold"):
        rows = run(mesh, "far")
        said = mesh.cli(n0, "doctor", "--name", "n0", "--json").lines
        between = mesh.cli(n0, "doctor", "--between", "n0", "far", "--json").lines
    assert words(rows) == dict.fromkeys(("tcp", "throughput"), ("intercepted", None))
    assert f"port {PROXY} of this machine" in rows["tcp"]["error"]
    assert rows["throughput"]["error"].startswith("n0: ")
    check = next(line for line in said if line["check"] == "tcp proxy")
    assert (check["status"], check["values"]["nodes"]) == ("fail", ["far"])
    assert re.fullmatch(
        f"nft ip lab c handle [0-9]+: redirect to port {PROXY}", check["values"]["rule"]
    )
    assert f"--exclude {BEHIND}" in check["fix"]
    for line in between:
        taken = line["check"] in ("tcp n0 -> far", "iperf3 n0 -> far")
        assert line["status"] == ("fail" if taken else "ok"), line
        assert (f"--exclude {BEHIND}" in line["fix"]) is taken


def test_proxy_at_the_first_hop_for_some_ports_is_told_though_the_node_is_reached_at_others(
    mesh: LabMesh,
) -> None:
    only = f"ip daddr {BEHIND} tcp dport 22 redirect to :{PROXY}"
    with redirected(mesh.lab.nodes[1], "prerouting", only):
        row = run(mesh, "far", "--probe", "tcp", "-c", "3")["tcp"]
    assert row["outcome"] == "intercepted"
    assert mesh.lab.nodes[1].address in row["error"]


def test_proxy_for_some_ports_beyond_the_first_hop_has_a_mark_where_it_is_faster_than_echoes(
    mesh: LabMesh,
) -> None:
    n2, n3 = mesh.lab.nodes[2:]
    only = f"ip daddr {BEHIND} tcp dport 22 redirect to :{PROXY}"
    mesh.lab.round_trip(n3, n2, 60)
    try:
        with redirected(n3, "prerouting", only):
            row = run(mesh, "far", "--probe", "ping", "--probe", "tcp", "-c", "3")["tcp"]
    finally:
        mesh.lab.clear()
    assert (row["outcome"], row["hint"]) == ("ok", "tcp_faster_than_icmp"), row


def test_doctor_sees_no_proxy_where_there_is_none(mesh: LabMesh) -> None:
    said = mesh.cli(mesh.lab.nodes[0], "doctor", "--name", "n0", "--json").lines
    check = next(line for line in said if line["check"] == "tcp proxy")
    assert (check["status"], check["values"]["nodes"]) == ("ok", [])


def test_sizes_that_are_clamped_on_the_way_are_no_proxy(mesh: LabMesh) -> None:
    n0, n1, *_ = mesh.lab.nodes
    (mesh.state_dir("n0") / "n0.verified").unlink(missing_ok=True)
    clamp = "tcp flags syn tcp option maxseg size set 590"  # below all that are drawn
    n1.run(
        ["nft", "-f", "-"], stdin=TABLE.replace("nat hook", "filter hook").format("forward", clamp)
    )
    try:
        row = run(mesh, "far", "--probe", "tcp", "-c", "3")["tcp"]
    finally:
        n1.run(["nft", "delete", "table", "ip", "lab"])
    assert (row["outcome"], row.get("hint")) == ("ok", None), row
    n0.run(["ip", "route", "change", "10.99.0.0/16", "via", n1.address, "advmss", "560"])
    (mesh.state_dir("n0") / "n0.verified").unlink(missing_ok=True)
    row = run(mesh, "far", "--probe", "tcp", "-c", "3")["tcp"]
    n0.run(["ip", "route", "change", "10.99.0.0/16", "via", n1.address])
    assert (row["outcome"], row.get("hint")) == ("ok", None), row
    assert "tcp|n0" in (mesh.state_dir("n0") / "n0.verified").read_text()


def test_address_that_is_translated_to_the_node_itself_is_ok(mesh: LabMesh) -> None:
    n0, _, n2, _ = mesh.lab.nodes
    rule = f"ip daddr {TRANSLATED} meta l4proto tcp dnat to {n2.address}"
    with redirected(n0, "output", rule):
        row = run(mesh, "translated", "--probe", "tcp", "-c", "3")["tcp"]
    # One hop away, behind an address that is routers away: only the node itself can tell.
    assert (row["outcome"], row.get("hint")) == ("ok", None), row["error"]
