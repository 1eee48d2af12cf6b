"""`ptzmesh verify`: prove that a file has all of a run."""

from __future__ import annotations

from pathlib import Path

import click

from coordinator.cli.settings.options import file_option, json_option, redis_option
from coordinator.cli.terminal.output import print_json
from coordinator.collect.verify import verify as verify_run
from coordinator.runs.runs import resolve_run
from worker.model.errors import RunIncomplete
from worker.wire.connection import server

#: A person reads the first few; `--json` has all.
MAX_PAIRS_SHOWN = 10


@click.command(
    epilog="""\b
Examples:
  ptzmesh verify last --csv network_metrics.csv
  ptzmesh verify 20261124T101500123-9f3a --csv network_metrics.csv
  ptzmesh verify last --csv network_metrics.csv --json | jq .agrees
"""
)
@redis_option
@click.argument("run")
@file_option(
    "--csv",
    "csv_path",
    instead="name the one that the run was collected into",
    required=True,
    help="The file that the run was collected into.",
)
@json_option
def verify(redis_url: str, run: str, csv_path: Path, as_json: bool) -> None:
    """Prove that a file and a run's plan agree: each pair has exactly one row."""
    connection = server.connect(redis_url, judged=True)
    proof = verify_run(connection, resolve_run(connection, run), csv_path)
    wrong = {"missing": proof.missing, "doubled": proof.doubled, "unexpected": proof.unexpected}
    if as_json:
        pairs = {name: [list(pair) for pair in some] for name, some in wrong.items()}
        head = {"run": proof.run, "status": proof.status, "agrees": proof.agrees}
        print_json(
            "verification", {**head, "expected": proof.expected, "rows": proof.rows, **pairs}
        )
    else:
        for name, some in wrong.items():
            for pair in some[:MAX_PAIRS_SHOWN]:
                click.echo(f"{name}: {pair.probe} {pair.source} -> {pair.target}")
            if len(some) > MAX_PAIRS_SHOWN:
                click.echo(f"{name}: … and {len(some) - MAX_PAIRS_SHOWN} more")
    if not proof.agrees:
        raise RunIncomplete(
            f"run {proof.run} ({proof.status}): {proof.rows} rows for {proof.expected} pairs: "
            f"{len(proof.missing)} missing, {len(proof.doubled)} doubled, "
            f"{len(proof.unexpected)} unexpected; {proof.fix}"
        )
    if not as_json:
        click.echo(f"run {proof.run}: {proof.rows} rows, exactly one for each pair of its plan")
