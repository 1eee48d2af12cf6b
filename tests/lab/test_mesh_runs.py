"""Runs of the whole mesh in the lab: IPv6, no rights, twice the same, cancelled, left alone."""

from __future__ import annotations

import os
import shlex

import pytest

from lab.mesh import LabMesh, together
from lab.mesh_runs import LONG, LONGER, UNPRIVILEGED, run
from worker.wire.registry import read_nodes

pytestmark = pytest.mark.lab


@together(4)
def test_full_mesh_over_ipv6(mesh: LabMesh) -> None:
    names = [f"six-{number}" for number in range(4)]
    for name, node in zip(names, mesh.lab.nodes, strict=True):
        mesh.start(node, "--address", node.address6, name=name)
    mesh.wait_until_alive(*names)
    rows = run(mesh, mesh.lab.nodes[0], "--nodes", ",".join(names)).rows
    assert len(rows) == 12
    assert {row["address"] for row in rows.values()} == {n.address6 for n in mesh.lab.nodes}


@together(2)
def test_without_privilege_a_row_names_the_command_that_fixes_it(mesh: LabMesh) -> None:
    names = ("plain-0", "plain-1")
    mesh.lab.directory.chmod(0o711)
    for name, node in zip(names, mesh.lab.nodes, strict=True):
        mesh.state_dir(name).mkdir()
        os.chown(mesh.state_dir(name), 65534, 65534)
        mesh.start(node, name=name, prefix=UNPRIVILEGED)
    mesh.wait_until_alive(*names)
    assert {n.icmp for n in read_nodes(mesh.connection) if n.name in names} == {"none"}
    refused = mesh.cli(mesh.lab.nodes[0], "run", "--json", "--nodes", ",".join(names))
    assert refused.code == 4
    assert {row["outcome"] for row in refused.rows.values()} == {"tool_missing"}
    assert {row["latency_ms"] for row in refused.rows.values()} == {None}
    for node in mesh.lab.nodes:
        fix = refused.rows[names]["error"].partition("sudo ")[2]
        node.run(shlex.split(fix))
    rows = run(mesh, mesh.lab.nodes[0], "--nodes", ",".join(names)).rows
    assert {row["socket"] for row in rows.values()} == {"datagram"}


@together(3)
def test_same_plan_triggered_twice_at_once_is_one_run_and_new_makes_a_second(
    mesh: LabMesh,
) -> None:
    n0, n1, n2 = mesh.lab.nodes
    options = ("run", "--json", *LONG)
    with mesh.command(n0, *options) as one, mesh.command(n1, *options) as two:
        runs = {one.first_line()["run"], two.first_line()["run"]}
        assert len(runs) == 1
        third = mesh.detach(n2, "--new", *LONG)
        for command in (one, two):
            said = command.end()
            assert (said.code, len(said.rows)) == (0, 6)
    runs.add(third)
    assert mesh.wait_until_ended(third).failed == 0
    listed = mesh.cli(n2, "runs", "--json").lines
    assert {line["run"] for line in listed} == runs
    assert len(runs) == 2


@together(3)
def test_run_is_cancelled_from_any_node_and_its_sweeps_end(mesh: LabMesh) -> None:
    n0, n1, n2 = mesh.lab.nodes
    with mesh.command(n0, "run", "--json", "--count", "3000") as watching:
        run_id = watching.first_line()["run"]
        mesh.wait_until_begun(run_id)
        assert mesh.cli(n1, "cancel", run_id).code == 0
        said = watching.end()
    assert said.code == 4
    assert {row["outcome"] for row in said.rows.values()} == {"cancelled"}
    assert len(mesh.rows(run_id)) == 6
    assert mesh.state(run_id).status == "cancelled"
    # Sweeps of five minutes would hold this one up for as long.
    after = mesh.detach(n2)
    assert mesh.wait_until_ended(after, 120).failed == 0


@together(3)
def test_ctrl_c_detaches_and_the_run_goes_on(mesh: LabMesh) -> None:
    with mesh.command(mesh.lab.nodes[0], "run", "--json", *LONGER) as watching:
        run_id = watching.first_line()["run"]
        mesh.wait_until_begun(run_id)
        watching.interrupt()
        said = watching.end()
    assert said.code == 130
    assert f"ptzmesh cancel {run_id}" in said.err
    assert mesh.state(run_id).is_open
    assert mesh.wait_until_ended(run_id).status == "done"
    assert mesh.state(run_id).failed == 0
    assert len(mesh.rows(run_id)) == 6
