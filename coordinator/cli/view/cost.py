"""`ptzmesh run --dry-run`: what a plan costs, in seconds and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from coordinator.cli.terminal.output import print_json
from coordinator.cli.terminal.screen import out
from coordinator.mesh import Mesh
from coordinator.results.matrix import make_report
from coordinator.runs.planning import asked
from coordinator.runs.runs import of_run, read_run, recent
from worker.model.cost import phase_seconds
from worker.model.errors import ConfigError, WireError
from worker.model.plan import Plan
from worker.model.text import in_bytes, in_time
from worker.probes.traffic import again_bytes, bytes_per_node
from worker.transfer.leases import spent_today
from worker.wire.node_record import Node
from worker.wire.room import read_limits

#: Runs that are looked through for one that says what such tests cost.
RUNS_LOOKED_AT = 20


def print_cost(mesh: Mesh, plan: Plan, nodes: Sequence[Node], as_json: bool) -> None:
    """Print what a plan costs at most; what has no bound is said once, with what it cost before."""
    pace = read_limits(mesh.connection)["results_per_s"]
    paced = {probe: plan.count(probe) / pace for probe in plan.probes}
    seconds = {probe: max(phase_seconds(plan, probe), paced[probe]) for probe in plan.probes}
    longest = {
        probe: max(phase_seconds(plan, probe, at_worst=True), paced[probe]) for probe in plan.probes
    }
    is_asked = asked(plan, nodes)
    cost, again = bytes_per_node(plan, is_asked), again_bytes(plan, is_asked)
    budgets = {node.name: node.bytes_per_day for node in nodes}
    spent = spent_today(mesh.connection, list(cost))
    left = {
        name: None if (budget := budgets.get(name)) is None else max(0, budget - spent[name])
        for name in cost
    }
    if as_json:
        print_json(
            "cost",
            {
                "pairs": plan.pair_count,
                "seconds": seconds,
                "longest_seconds": longest,
                "bytes_per_node": cost,
                "bytes_if_unanswered": again,
                "bytes_left_today": left,
            },
        )
        return
    console = out()
    times = ", ".join(_lasts(probe, seconds[probe], longest[probe]) for probe in plan.probes)
    console.print(f"{plan.pair_count} pairs: {times}, once every node is free")
    if None in cost.values():
        bound = "bytes have no bound: set one with --bitrate or --bytes"
        console.print(bound + _before(mesh, plan))
    for name in sorted(cost, key=lambda name: -(cost[name] or 0)):
        parts = [] if cost[name] is None else [f"at most {cost[name]:,} bytes"]
        parts += [] if left[name] is None else [f"{left[name]:,} are left for today"]
        if parts:
            console.print(f"  {name}: {'; '.join(parts)}")
    if again:
        console.print(
            f"who answers at private addresses is asked: {again:,} bytes a node more at most, "
            "where nobody answers"
        )
    console.print("nothing was started")


def _lasts(probe: str, usual_s: float, longest_s: float) -> str:
    """Say how long a phase takes; a test's length depends on its path's round trips, too."""
    usually = f" about {in_time(round(usual_s))} on quick paths," if longest_s > usual_s else ""
    return f"{probe}{usually} at most {in_time(ceil(max(usual_s, longest_s)))}"


def _before(mesh: Mesh, plan: Plan) -> str:
    """Say what the newest run with the same tests cost a node at most, if there is one."""
    wanted = {p: options for p, options in plan.options.items() if plan.kind(p).has_two_ends}
    for run_id in recent(mesh.connection, RUNS_LOOKED_AT):
        try:
            run = read_run(mesh.connection, run_id)
        except (ConfigError, WireError):
            continue
        if run.is_open or any(run.plan.options.get(p) != own for p, own in wanted.items()):
            continue
        results = (measurement for _, measurement in of_run(mesh.connection, run_id, run))
        moved = make_report(run.plan, results).bytes_by_node
        if most := max(moved.values(), default=0):
            return f"; run {run_id} with the same tests moved up to {in_bytes(most)} a node"
        return ""
    return ""
