"""`ptzmesh runs`, `show`, `cancel`: look at runs from any node, end one."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import click
from rich.text import Text

from coordinator.cli.options import json_option, redis_option
from coordinator.cli.terminal.output import print_json, svg_file
from coordinator.cli.terminal.screen import err, out, print_list
from coordinator.cli.terminal.tables import Column
from coordinator.cli.watch import run_to_json, save_svg, show_report, watch
from coordinator.mesh import Mesh
from coordinator.results.figures import FIGURES
from coordinator.results.matrix import make_report
from coordinator.runs.follow import of_run
from coordinator.runs.runs import read_run, recent
from worker.model.errors import ConfigError, WireError
from worker.model.text import iso_utc
from worker.wire.run_record import Run


@click.command(
    epilog="""\b
Examples:
  ptzmesh runs
  ptzmesh runs --last 5
  ptzmesh runs --json | jq -r 'select(.status == "running") | .run'
"""
)
@redis_option
@click.option(
    "--last",
    "count",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="How many runs are listed.",
)
@json_option
def runs(redis_url: str, count: int, as_json: bool) -> None:
    """List the newest runs."""
    mesh = Mesh(redis_url)
    found = []
    for run_id in recent(mesh.connection, count):
        try:
            found.append(read_run(mesh.connection, run_id))
        except ConfigError:
            continue  # its record has expired before its place in the list
        except WireError as exc:
            click.echo(f"run {run_id} is not shown: {exc}", err=True)
    if as_json:
        for run in found:
            print_json("run", run_to_json(run))
    elif found:
        print_list(_columns(found))
    else:
        click.echo("no run yet; start one with: ptzmesh run", err=True)


def _columns(found: list[Run]) -> list[Column]:
    rows = [_cells(run) for run in found]
    numbers = ("nodes", "pairs", "failed")
    return [
        Column(name, [Text(row[name]) for row in rows], is_number=name in numbers)
        for name in rows[0]
    ]


def _cells(run: Run) -> dict[str, str]:
    started = iso_utc(datetime.fromtimestamp(run.created, timezone.utc))[:19].replace("T", " ")
    return {
        "run": run.id,
        "status": run.status,
        "pairs": f"{run.published}/{run.expected}",
        "failed": str(run.failed),
        "probes": ",".join(run.plan.probes),
        "nodes": str(len(run.plan.nodes)),
        "started (UTC)": started,
        "by": run.by,
    }


@click.command(
    epilog="""\b
Examples:
  ptzmesh show last
  ptzmesh show 20261124T101500123-9f3a
  ptzmesh show last --figure max --figure jitter
  ptzmesh show last --svg matrix.svg
"""
)
@redis_option
@click.argument("run", default="last")
@click.option("--follow", is_flag=True, help="Show it as it fills, until the run has ended.")
@click.option("--wide", is_flag=True, help="Also how much a load adds to the round-trip time.")
@click.option(
    "--figure",
    "figures",
    multiple=True,
    type=click.Choice(list(FIGURES)),
    help="Show this figure instead of the usual ones; repeatable.",
)
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=svg_file,
    help="Save the matrix as a picture, FILE.svg.",
)
@json_option
def show(
    redis_url: str,
    run: str,
    follow: bool,
    wide: bool,
    figures: tuple[str, ...],
    svg: Path | None,
    as_json: bool,
) -> None:
    """Show the matrix of a run, `last` by default."""
    if follow and (wide or figures or svg):
        raise click.UsageError("--follow shows the usual figures: ask for others when it has ended")
    opened = Mesh(redis_url).open(run)
    if follow:
        watch(opened, as_json=as_json)
        return
    state = opened.state()
    found = (measurement for _, measurement in of_run(opened.connection, opened.id))
    if as_json:
        print_json("run", run_to_json(state))
        for measurement in found:
            print_json("measurement", measurement.to_json())
        return
    made = make_report(state.plan, found, wide=wide, figures=figures)
    if svg is not None:
        save_svg(state, made, svg)
        err().print(f"the matrix as a picture in {svg}")
        return
    show_report(state, made, out())


@click.command(
    epilog="""\b
Examples:
  ptzmesh cancel last
  ptzmesh cancel 20261124T101500123-9f3a
  ptzmesh runs --json | jq -r 'select(.status == "running") | .run' | xargs -n1 ptzmesh cancel
"""
)
@redis_option
@click.argument("run")
def cancel(redis_url: str, run: str) -> None:
    """End a run now; pairs that are not measured say so."""
    opened = Mesh(redis_url).open(run)
    opened.cancel()
    state = opened.state()
    click.echo(
        f"run {opened.id} is {state.status}; {state.failed} of {state.expected} pairs "
        "have no number",
        err=True,
    )
