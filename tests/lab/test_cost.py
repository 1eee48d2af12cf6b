"""What `run --dry-run` says that a run costs, held against what the kernel saw move."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.mesh import LabMesh, Said, mesh_of
from lab.node import Node

pytestmark = pytest.mark.lab

#: A datagram of 96 bytes and one back, each with headers of IPv4 and UDP.
QUESTION = 2 * (20 + 8 + 96)
#: All that a node sends and receives, from the IP header on, but for what Redis is asked.
COUNTED = """table inet cost {
  counter moved { }
  chain in {
    type filter hook input priority 0
    iifname != "lo" ip saddr != REDIS counter name moved
  }
  chain out {
    type filter hook output priority 0
    oifname != "lo" ip daddr != REDIS counter name moved
  }
}
"""


def begin_to_count(mesh: LabMesh) -> None:
    rules = COUNTED.replace("REDIS", mesh.lab.redis_node.address)
    for node in mesh.lab.nodes:
        node.run(["nft", "-f", "-"], stdin=rules)


def moved(node: Node) -> int:
    """Give the bytes that a node has moved since it was last asked."""
    said = json.loads(node.run(["nft", "-j", "reset", "counter", "inet", "cost", "moved"]).stdout)
    return next(int(one["counter"]["bytes"]) for one in said["nftables"] if "counter" in one)


def run_of(mesh: LabMesh, *options: str) -> tuple[dict[str, Any], Said, dict[str, int]]:
    """Give what a run is said to cost, its rows, and what each node moved."""
    n0 = mesh.lab.nodes[0]
    told = mesh.cli(n0, "run", "--json", "--dry-run", *options).lines[0]
    for node in mesh.lab.nodes:
        moved(node)
    said = mesh.cli(n0, "run", "--json", *options)
    assert {row["outcome"] for row in said.rows.values()} == {"ok"}, said
    return told, said, {node.name: moved(node) for node in mesh.lab.nodes}


def test_dry_run_tells_the_bytes_that_move_questions_included() -> None:
    """Ten echoes and who answers; then handshakes, each refused and so of half the packets."""
    with mesh_of(4) as mesh:
        begin_to_count(mesh)
        told, said, found = run_of(mesh)
        again = told["bytes_if_unanswered"]
        assert again == 3 * 2 * QUESTION // 2
        for name, cost in told["bytes_per_node"].items():
            assert cost == 2 * 3 * (11 * 2 * 84 + QUESTION)
            # A node that stands still for seconds is not asked, or is asked again.
            late = sum(
                name in pair and bool(row.get("unverified")) for pair, row in said.rows.items()
            )
            assert 0.9 * (cost - late * QUESTION) <= found[name] <= 1.1 * cost + late * again

        told, _, found = run_of(mesh, "--probe", "tcp", "--no-warm-up")
        for name, cost in told["bytes_per_node"].items():
            assert found[name] <= cost, found
        # Who has said within the day which handshake came is not asked again.
        _, _, later = run_of(mesh, "--probe", "tcp", "--no-warm-up")
        assert sum(later.values()) < sum(found.values())
