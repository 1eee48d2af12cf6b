"""`ptzmesh run`: trigger a mesh from any node and watch its matrix fill."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import redis

from coordinator.cli.settings.options import (
    family_options,
    file_option,
    json_option,
    label_option,
    names_option,
    redis_option,
)
from coordinator.cli.settings.probe_options import probe_option, probe_options
from coordinator.cli.terminal.output import print_json
from coordinator.cli.terminal.screen import err
from coordinator.collect.groups import Group, asking_collectors, not_run
from coordinator.mesh import Mesh, MeshRun
from coordinator.runs.planning import left_out, of_other_family, to_upgrade
from coordinator.runs.runs import repeat_command
from coordinator.runs.starting import asking_look
from worker.model.errors import ConfigError, PtzmeshError, RunIncomplete
from worker.model.options import Options
from worker.model.plan import Plan
from worker.model.text import some
from worker.wire.node_record import Node
from worker.wire.round_trip import together
from worker.wire.run_record import Run


@click.command(
    epilog="""\b
Examples:
  ptzmesh run                                      every node to every other, ping
  ptzmesh run --from cam-1 --to hub --count 100    one pair, a hundred echoes
  ptzmesh run --probe ping --probe throughput --duration 2 --dry-run
"""
)
@redis_option
@probe_option
@names_option(
    "--nodes", help="Nodes that take part, as sources and as targets [default: all that are alive]."
)
@names_option("--from", "sources", help="Nodes that are sources.")
@names_option("--to", "targets", help="Nodes that are targets.")
@label_option(help="Only nodes with this label; repeatable.")
@click.option(
    "--sample", type=int, metavar="K", help="Each source measures K targets, others each time."
)
@family_options("Only nodes with a host name or")
@probe_options
@click.option("--new", is_flag=True, help="Do not join a running run of the same plan.")
@click.option("--dry-run", is_flag=True, help="Say what the run costs, and start nothing.")
@click.option("--detach", is_flag=True, help="Start the run, print its id, and do not wait.")
@file_option(
    "--csv",
    "csv_path",
    instead="ptzmesh results --run ID --csv - prints the rows of a run",
    help="Add the rows of this run, and no others, to this file.",
)
@json_option
def run(
    redis_url: str,
    probes: tuple[str, ...],
    options: Mapping[str, Options],
    new: bool,
    dry_run: bool,
    detach: bool,
    csv_path: Path | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Measure nodes against each other and show the matrix as it fills."""
    if detach and csv_path is not None:
        raise ConfigError(
            "--detach does not wait for the rows that --csv writes; leave out --csv, and then: "
            + repeat_command("ID", csv_path)
        )
    mesh = Mesh(redis_url)
    look, known = together(mesh.connection, asking_look(), asking_collectors())
    registered = look.registry
    plan = mesh.plan(registry=registered, probes=probes, options=options, **chosen)
    if dry_run:
        from coordinator.cli.view.cost import print_cost

        print_cost(mesh, plan, registered, as_json)
        return
    if not chosen["nodes"] and not (chosen["sources"] and chosen["targets"]):
        _name_left_out(registered, plan, chosen["labels"], chosen["family"])
    _name_abandoned(known)
    with contextlib.ExitStack() as stack:
        file = None
        if csv_path is not None:
            from coordinator.collect.oneshot import OneShot

            file = stack.enter_context(OneShot(mesh.connection, csv_path))
        started = mesh.start(plan, join=not new, look=look)
        if started.joined:
            err().print(f"joined run {started.id}: somebody had just started the same plan")
        if detach:
            if as_json:
                print_json("started", {"run": started.id})
            else:
                click.echo(started.id)
            return
        if file:
            started.write_to(file)
        state = _watch(started, as_json, csv_path)
        if file:
            err().print(f"{file.rows} rows of run {state.id} added to {csv_path}")
            file.check_whole(state)
    if state.failed:
        raise RunIncomplete(
            f"{state.failed} of {state.expected} pairs have no number; why, pair by pair: "
            f"ptzmesh results --run {state.id}"
        )


def _name_left_out(
    registered: Sequence[Node], plan: Plan, labels: Mapping[str, str], family: int | None
) -> None:
    """Name the nodes that a plan lacks though nobody has chosen among them, and why."""
    if silent := left_out(registered, plan):
        err().print(f"left out, as they are silent: {some(silent, 12)}")
    if outdated := to_upgrade(registered, plan, labels):
        err().print(f"left out, as versions differ: {outdated}")
    if others := of_other_family(registered, plan, family):
        err().print(f"left out, as they have no IPv{family} address: {some(others, 12)}")


def _name_abandoned(known: Sequence[Group]) -> None:
    """Name the collectors that nobody runs, in one line, before they hold anything up."""
    gone = [group for group in known if group.is_abandoned]
    if gone:
        more = f" ({len(gone) - 1} more: ptzmesh collect --list)" if gone[1:] else ""
        click.echo(f"collector {gone[0].name}: {not_run(gone[0])}{more}", err=True)


def _watch(started: MeshRun, as_json: bool, csv_path: Path | None) -> Run:
    """Watch to the end; whatever ends it before, the run goes on, and its rows can still be had."""
    rows = "" if csv_path is None else f"its rows: {repeat_command(started.id, csv_path)}"
    try:
        # Not before the run is started: while this is imported, its sources begin.
        from coordinator.cli.view.watch import watch

        return watch(started, as_json=as_json)
    except KeyboardInterrupt:
        click.echo(
            f"detached; the run goes on. Follow: ptzmesh show --follow {started.id}   "
            f"end it: ptzmesh cancel {started.id}" + ("\n" if rows else "") + rows,
            err=True,
        )
        raise
    except (PtzmeshError, redis.RedisError):
        if rows:
            click.echo(f"the run may go on; {rows}", err=True)
        raise
