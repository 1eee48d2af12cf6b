"""`ptzmesh runs`: the newest runs."""

from __future__ import annotations

from datetime import datetime, timezone

import click

from coordinator.cli.settings.options import json_option, redis_option
from coordinator.cli.terminal.output import print_json
from coordinator.cli.terminal.screen import print_list
from coordinator.runs.runs import recent
from worker.model.errors import WireError
from worker.model.text import iso_utc
from worker.wire.connection import server
from worker.wire.round_trip import alone
from worker.wire.run_record import Run, asking_runs


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
    connection = server.connect(redis_url, judged=True)
    shown = []
    known = recent(connection, count)
    # None is one whose record has expired before its place in the list.
    for run_id, run in zip(known, alone(connection, asking_runs(known)), strict=True):
        if isinstance(run, WireError):
            click.echo(f"run {run_id} is not shown: {run}", err=True)
        elif run is not None:
            shown.append(run)
    if as_json:
        for run in shown:
            print_json("run", run.to_json())
    elif shown:
        print_list([_cells(run) for run in shown], ("nodes", "pairs", "failed"))
    else:
        click.echo("no run yet; start one with: ptzmesh run", err=True)


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
