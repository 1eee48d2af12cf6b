"""
Containers of one host, as Docker joins them: by a bridge, masqueraded, two with published ports.

The host is n0; c1 and c2 are containers on it, with a node at the container's own address, and one,
p1 and p2, that says the host's address and has ports of it forwarded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lab.behind import network_behind
from lab.mesh import LabMesh
from lab.net import Lab
from worker.wire.registry import read_nodes

# Quiet, as a node that a stalled machine keeps from answering whose an address is, is `unverified`.
pytestmark = [pytest.mark.long, pytest.mark.quiet, pytest.mark.lab]

HOST = "10.77.0.1"
PORTS = {"p1": "5301-5310", "p2": "5401-5410"}
PUBLISHED = f"""table ip published {{
  chain in {{
    type nat hook prerouting priority -100
    ip daddr {HOST} meta l4proto {{ tcp, udp }} th dport {PORTS["p1"]} dnat to 192.168.1.2
    ip daddr {HOST} meta l4proto {{ tcp, udp }} th dport {PORTS["p2"]} dnat to 192.168.1.3
  }}
  chain back {{
    type nat hook postrouting priority 90
    ip saddr 192.168.1.0/24 ip daddr 192.168.1.0/24 masquerade
  }}
}}
"""
SMALL = ("--count", "3", "--duration", "1", "--bytes", "200000", "--bitrate", "8")
PROBES = ("--probe", "ping", "--probe", "tcp", "--probe", "throughput")


@pytest.fixture(scope="module")
def host() -> Iterator[LabMesh]:
    with Lab(2, redis=True) as lab, network_behind(lab.nodes[0], [("c1", 2), ("c2", 3)]) as inside:
        lab.nodes[0].run(["nft", "-f", "-"], stdin=PUBLISHED)
        mesh = LabMesh(lab)
        for node in (*lab.nodes, *inside):
            mesh.start(node)
        for node, (name, ports) in zip(inside, PORTS.items(), strict=True):
            mesh.start(node, "--address", HOST, "--ports", ports, name=name)
        mesh.wait_until_alive("n0", "n1", "c1", "c2", *PORTS)
        try:
            yield mesh
        finally:
            mesh.close()


def measured(mesh: LabMesh, *nodes: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Run all probes among nodes; give the rows by probe and pair."""
    here = mesh.lab.nodes[1]
    said = mesh.cli(here, "run", "--json", "--nodes", ",".join(nodes), *SMALL, *PROBES)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for line in said.lines:
        if "source" in line:
            rows = found.setdefault(line["probe"], {})
            rows[f"{line['source']}>{line['target']}"] = line
    assert found.keys() == {"ping", "tcp", "throughput"}, said.err
    return found


def test_containers_of_one_host_measure_each_other_and_it_without_a_mark(host: LabMesh) -> None:
    places = {node.name: (node.boot, node.netns) for node in read_nodes(host.connection)}
    assert len({boot for boot, _ in places.values()}) == 1
    assert len({places[name] for name in ("n0", "c1", "c2")}) == 3
    for rows in measured(host, "n0", "c1", "c2").values():
        assert len(rows) == 6
        for pair, row in rows.items():
            assert (row["outcome"], row["error"]) == ("ok", ""), pair
            assert not row.get("unverified"), pair
            assert not row.get("hint"), pair
    for name, other in (("c1", "c2"), ("c2", "c1")):
        assert f"|{other}|" in (host.state_dir(name) / f"{name}.verified").read_text()


def test_node_behind_published_ports_is_measured_by_what_reaches_it_and_nothing_else(
    host: LabMesh,
) -> None:
    found = measured(host, "n0", "n1", "p1", "p2")
    itself = ("n0>n1", "n1>n0", "p1>n0", "p1>n1", "p2>n0", "p2>n1")
    expected = {
        **dict.fromkeys(itself, "ok"),
        **dict.fromkeys(("n0>p1", "n0>p2"), "wrong_host"),
        # The host answers echoes and handshakes in their place.
        **dict.fromkeys(("n1>p1", "n1>p2", "p1>p2", "p2>p1"), "unverified"),
    }
    for probe in ("ping", "tcp"):
        rows = found[probe]
        assert {pair: row["outcome"] for pair, row in rows.items()} == expected, probe
        assert all(rows[p]["latency_ms"] is None for p in expected if expected[p] != "ok")
        said = rows["n1>p1"]["error"]
        assert said.startswith(f"n0, p1, p2 answer at {HOST}: its ports are forwarded, and "), said
    # Who cannot be connected to connects, so that its tests are true; two of those cannot meet.
    rows = found["throughput"]
    for pair, row in rows.items():
        meets = pair not in ("p1>p2", "p2>p1")
        assert (row["outcome"] == "ok") is meets, (pair, row["error"])
        by = next((n for n in ("p1", "p2") if n in pair), pair.partition(">")[0])
        assert not meets or row["connected_by"] == by


def test_container_without_a_published_port_is_unreachable_from_elsewhere(host: LabMesh) -> None:
    for ends in (("--from", "n1", "--to", "c1"), ("--from", "c1", "--to", "n1", "--reverse")):
        options = (*ends, *SMALL, "--probe", "throughput")
        said = host.cli(host.lab.nodes[1], "run", "--json", *options)
        (row,) = said.rows.values()
        assert (row["outcome"], row.get("connected_by")) == ("unreachable", "n1"), row
        assert row["error"] == "unable to connect to server: Network is unreachable"


def test_one_node_behind_a_published_port_and_no_other_there_is_ok(host: LabMesh) -> None:
    for name in ("n0", "p2"):
        host.workers[name].terminate()
        host.workers[name].wait()
    for probe, rows in measured(host, "n1", "p1").items():
        for pair, row in rows.items():
            assert (row["outcome"], row["error"]) == ("ok", ""), (probe, pair)
            assert not row.get("unverified"), (probe, pair)
            assert not row.get("hint"), (probe, pair)
