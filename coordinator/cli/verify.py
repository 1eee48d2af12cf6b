"""`ptzmesh verify`: prove that a file has a run whole."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from coordinator.cli.settings.options import file_option, json_option, redis_option
from coordinator.cli.terminal.output import print_json
from coordinator.collect.verify import Pair
from coordinator.collect.verify import verify as verify_run
from coordinator.mesh import Mesh
from coordinator.runs.runs import resolve_run
from worker.model.errors import RunIncomplete

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
    connection = Mesh(redis_url).connection
    found = verify_run(connection, resolve_run(connection, run), csv_path)
    wrong = {"missing": found.missing, "doubled": found.doubled, "unexpected": found.unexpected}
    if as_json:
        pairs = {name: [list(pair) for pair in some] for name, some in wrong.items()}
        head = {"run": found.run, "status": found.status, "agrees": found.agrees}
        print_json(
            "verification", {**head, "expected": found.expected, "rows": found.rows, **pairs}
        )
    else:
        for name, some in wrong.items():
            _print_pairs(name, some)
    if not found.agrees:
        raise RunIncomplete(
            f"run {found.run} ({found.status}): {found.rows} rows for {found.expected} pairs: "
            f"{len(found.missing)} missing, {len(found.doubled)} doubled, "
            f"{len(found.unexpected)} unexpected; {found.mend}"
        )
    if not as_json:
        click.echo(f"run {found.run}: {found.rows} rows, exactly one for each pair of its plan")


def _print_pairs(name: str, pairs: Iterable[Pair]) -> None:
    shown = list(pairs)
    for pair in shown[:MAX_PAIRS_SHOWN]:
        click.echo(f"{name}: {pair.probe} {pair.source} -> {pair.target}")
    if len(shown) > MAX_PAIRS_SHOWN:
        click.echo(f"{name}: … and {len(shown) - MAX_PAIRS_SHOWN} more")
