"""Runs of the whole mesh in the lab, and users that may do nothing."""

from __future__ import annotations

from lab.mesh import LabMesh, Said
from lab.node import Node
from worker.model.measurement import Outcome

OK = {Outcome.OK}

#: Echoes of a run in which something is to happen: its sweeps last 15 s or 30 s, as a busy machine
#: may need ten to begin them all and to strike.
LONG, LONGER = ("--count", "150"), ("--count", "300")

#: A user without any right but to read the interpreter where it is installed.
UNPRIVILEGED = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
    "--bounding-set=-all,+dac_read_search",
)


def run(mesh: LabMesh, node: Node, *options: str) -> Said:
    """Run a plan that must succeed: every pair there once, and ok."""
    said = mesh.cli(node, "run", "--json", *options)
    assert said.code == 0, said.err
    assert {row["outcome"] for row in said.rows.values()} == {"ok"}
    assert len(mesh.rows(said.run)) == len(said.rows)
    return said
