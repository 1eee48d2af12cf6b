"""`ptzmesh results`: read what is in the stream."""

from __future__ import annotations

from pathlib import Path

import click
import redis

from coordinator.cli.settings.options import file_option, json_option, redis_option
from coordinator.cli.terminal.cells import number, percent, rtt_words, why
from coordinator.cli.terminal.output import print_csv, print_json
from coordinator.cli.terminal.screen import err
from coordinator.cli.terminal.signals import stop_on_signals
from coordinator.results.results import follow as follow_results
from coordinator.results.results import read
from coordinator.runs.runs import of_run, resolve_run
from worker.model.errors import ConfigError
from worker.model.measurement import Measurement, Outcome
from worker.model.names import RunId
from worker.model.text import iso_utc
from worker.wire.connection import server


@click.command(
    epilog="""\b
Examples:
  ptzmesh results --run last
  ptzmesh results --run last --csv run.csv
  ptzmesh results --json | jq -c '[.source, .target, .latency_ms]'
"""
)
@redis_option
@click.option("--run", "run", help="Print the results of this run only; `last` is the newest.")
@click.option("--follow", is_flag=True, help="Print results as they arrive, until Ctrl-C.")
@file_option(
    "--csv",
    "csv_path",
    help="Add what this file has not got of the run, to the run's end, and print no results; `-` "
    "prints the rows.",
)
@json_option
def results(
    redis_url: str, run: str | None, follow: bool, csv_path: Path | None, as_json: bool
) -> None:
    """Print the results that are in the stream, oldest first."""
    if csv_path is not None and (run is None or follow):
        raise ConfigError(
            "--csv takes one run, to its end: --run ID --csv FILE, without --follow; all results: "
            "ptzmesh collect --csv FILE"
        )
    connection = server.connect(redis_url, judged=True)
    run_id = None if run is None else resolve_run(connection, run)
    if csv_path is not None and run_id is not None:
        _write_run(connection, run_id, csv_path, as_json)
        return
    write = _json_line if as_json else _text_line
    last = None
    found = of_run(connection, run_id) if run_id else read(connection)
    for last, measurement in found:
        write(last, measurement)
    if follow:
        stopping = stop_on_signals()
        for line in follow_results(connection, stopping, run=run_id, after=last):
            write(*line)
    elif last is None:
        click.echo("no result is in the stream yet; start a run with: ptzmesh run", err=True)


def _write_run(connection: redis.Redis, run_id: RunId, path: Path, as_json: bool) -> None:
    # As `show --follow`: whoever waits for the end of a run may have to carry it on.
    from coordinator.collect.oneshot import OneShot
    from coordinator.mesh import MeshRun

    run = MeshRun(connection, run_id)
    if str(path) == "-":
        print_csv(("", measurement) for measurement in run.measurements())
        return
    with OneShot(run.connection, path) as file:
        run.write_to(file)
        state = run.state()
        if state.is_open:
            err().print(f"run {run.id} is running; this waits for its end")
        for update in run.updates():
            state = update.run
        if as_json:
            print_json("collected", {"run": run.id, "csv": str(path), "rows": file.rows})
        else:
            err().print(f"{file.rows} rows of run {run.id} added to {path}")
        file.check_whole(state)


def _json_line(stream_id: str, measurement: Measurement) -> None:
    print_json("measurement", measurement.to_json(stream_id))


def _text_line(_stream_id: str, m: Measurement) -> None:
    value = rtt_words(m)
    if m.throughput_mbps is not None:
        value += f" {number(m.throughput_mbps)} Mbit/s"
    loss = ""
    # That nothing was answered is said once.
    if m.packet_loss_pct and m.outcome is not Outcome.NO_REPLY:
        loss = f"{percent(m.packet_loss_pct)} lost"
    parts = (iso_utc(m.started_at), m.probe, f"{m.source} -> {m.target}", value, loss, why(m))
    click.echo("  ".join(part for part in parts if part))
