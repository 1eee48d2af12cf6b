"""`ptzmesh show`: the matrix of a run, from any node."""

from __future__ import annotations

from pathlib import Path

import click

from coordinator.cli.settings.options import FILE, json_option, redis_option
from coordinator.cli.terminal.output import print_json
from coordinator.cli.terminal.screen import err, out
from coordinator.cli.view.report import save_svg, show_report
from coordinator.results.figures import FIGURES
from coordinator.results.matrix import make_report
from coordinator.runs.runs import of_run, read_run, resolve_run
from worker.wire.connection import server


def _svg_file(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path | None:
    """Take a file for a picture: its name must not promise another format."""
    if value is not None and not value.name.lower().endswith(".svg"):
        raise click.BadParameter(f"'{value}' must end in .svg: pictures are written as SVG only")
    return value


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
    "--svg", type=FILE, callback=_svg_file, help="Save the matrix as a picture, FILE.svg."
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
    if follow:
        _follow(redis_url, run, as_json=as_json)
        return
    connection = server.connect(redis_url, judged=True)
    run_id = resolve_run(connection, run)
    state = read_run(connection, run_id)
    measurements = (measurement for _, measurement in of_run(connection, run_id, state))
    if as_json:
        print_json("run", state.to_json())
        for measurement in measurements:
            print_json("measurement", measurement.to_json())
        return
    report = make_report(state.plan, measurements, wide=wide, figures=figures)
    if svg is not None:
        save_svg(state, report, svg)
        err().print(f"the matrix as a picture in {svg}")
        return
    show_report(state, report, out())


def _follow(redis_url: str, run: str, *, as_json: bool) -> None:
    # Whoever follows may have to carry the run on: all that this takes, RQ too, is imported here.
    from coordinator.cli.view.watch import watch
    from coordinator.mesh import Mesh

    watch(Mesh(redis_url).open(run), as_json=as_json)
