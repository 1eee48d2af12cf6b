"""A connection to Redis of which nothing arrives any more, and nobody is told."""

from __future__ import annotations

from typing import Any

import pytest
from waiting import wait_until

from lab.mesh import LabMesh, together
from lab.node import Node
from worker.model.measurement import Outcome
from worker.model.names import NodeName
from worker.wire import keyspace
from worker.wire.node_record import RQ_WORKERS

pytestmark = pytest.mark.lab

#: As what a router between forgets: to one connection nothing passes, no end of it either.
FORGOTTEN = """
table inet forgotten {{
  chain out {{ type filter hook output priority 0; tcp sport {port} drop; }}
  chain in {{ type filter hook input priority 0; tcp dport {port} drop; }}
}}
"""


def port_of(mesh: LabMesh, name: str, role: str) -> int:
    """Give the port of the connection of a node's RQ worker."""
    record = keyspace.node_key(NodeName(name))
    worker: Any = mesh.connection.hget(record, RQ_WORKERS[role])
    clients: Any = mesh.connection.client_list()
    (address,) = [one["addr"] for one in clients if one["name"] == (worker or b"").decode()]
    return int(address.rpartition(":")[2])


def forget(node: Node, port: int) -> None:
    """Let nothing pass to and from a port of a node."""
    node.run(["nft", "-f", "-"], stdin=FORGOTTEN.format(port=port))


@together(2)
def test_node_whose_prober_hears_nothing_any_more_measures_all_the_same(mesh: LabMesh) -> None:
    record, field = keyspace.node_key(NodeName("n0")), RQ_WORKERS["prober"]
    wait_until(lambda: bool(mesh.connection.hget(record, field)), "n0 has told of its prober")
    forget(mesh.lab.nodes[0], port_of(mesh, "n0", "prober"))
    said = mesh.cli(mesh.lab.nodes[1], "run", "--count", "1", "--json", timeout_s=80.0)
    assert (said.code, len(said.rows)) == (0, 2), said
    assert {row["outcome"] for row in said.rows.values()} == {Outcome.OK}
