"""`ptzmesh cancel`: end a run, from any node."""

from __future__ import annotations

import click

from coordinator.cli.settings.options import redis_option
from coordinator.mesh import Mesh


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
