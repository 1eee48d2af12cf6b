"""`ptzmesh results`, `collect`, `verify`: read the stream, drain it, prove the file whole."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click
import redis

from coordinator.cli.options import json_option, redis_option
from coordinator.cli.terminal.cells import UNTIMED, WHY_UNTIMED, number, percent, word
from coordinator.cli.terminal.logs import log_to_stderr
from coordinator.cli.terminal.output import no_dash, print_csv, print_json
from coordinator.cli.terminal.screen import err
from coordinator.cli.terminal.signals import stop_on_signals
from coordinator.collect.collector import Collector
from coordinator.collect.groups import collectors, not_run
from coordinator.collect.groups import forget as forget_group
from coordinator.collect.oneshot import OneShot
from coordinator.collect.verify import Pair
from coordinator.collect.verify import verify as verify_run
from coordinator.mesh import Mesh, MeshRun
from coordinator.results.results import follow as follow_results
from coordinator.results.results import read
from coordinator.results.stream import START
from coordinator.runs.follow import of_run
from coordinator.runs.runs import resolve_run
from worker.model.errors import ConfigError, RunIncomplete
from worker.model.measurement import Measurement, Outcome
from worker.model.text import in_time, iso_utc

#: A person reads the first few; `--json` has all.
MAX_PAIRS_SHOWN = 10


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
@click.option(
    "--csv",
    "csv_path",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
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
    connection = Mesh(redis_url).connection
    run_id = None if run is None else resolve_run(connection, run)
    if csv_path is not None and run_id is not None:
        _write_run(MeshRun(connection, run_id), csv_path, as_json)
        return
    write = _json_line if as_json else _text_line
    found = of_run(connection, run_id) if run_id else read(connection)
    last = "0-0"
    for last, measurement in found:
        write(last, measurement)
    if last == "0-0" and not follow:
        click.echo("no result is in the stream yet; start a run with: ptzmesh run", err=True)
    if follow:
        stopping = stop_on_signals()
        for stream_id, measurement in follow_results(
            connection, stopping, run=run_id, after=None if last == "0-0" else last
        ):
            write(stream_id, measurement)


def _write_run(run: MeshRun, path: Path, as_json: bool) -> None:
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
    value = number(m.latency_ms) + " ms" if m.latency_ms is not None else ""
    if m.is_untimed:
        value = f"{UNTIMED}: {WHY_UNTIMED}"
    if m.throughput_mbps is not None:
        value += f" {number(m.throughput_mbps)} Mbit/s"
    # That nothing was answered is said once.
    lost_some = m.packet_loss_pct and m.outcome is not Outcome.NO_REPLY
    loss = f"{percent(m.packet_loss_pct)} lost" if lost_some and m.packet_loss_pct else ""
    said = "" if m.outcome is Outcome.OK else f"{word(m.outcome)}: {m.error}"
    parts = (iso_utc(m.started_at), m.probe, f"{m.source} -> {m.target}", value, loss, said)
    click.echo("  ".join(part for part in parts if part))


@click.command(
    epilog="""\b
Examples:
  ptzmesh collect --csv network_metrics.csv
  ptzmesh collect --csv /data/network_metrics.csv --follow
  ptzmesh collect --list
"""
)
@redis_option
@click.option(
    "--csv",
    "csv_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File to which rows are added; made if it is not there. `-` prints all rows that are in "
    "the stream, and remembers nothing.",
)
@click.option("--follow", is_flag=True, help="Go on until SIGTERM or Ctrl-C; waits for Redis.")
@click.option(
    "--from-start",
    is_flag=True,
    help="Write all that the stream still has, also what an earlier file of this collector holds.",
)
@click.option(
    "--events",
    "event_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=no_dash("ptzmesh events --json prints events"),
    help="CSV that gets the events which come from now on (ptzmesh events), each once.",
)
@click.option("--group", metavar="NAME", help="Consumer group [default: of host and path].")
@click.option("--list", "list_groups", is_flag=True, help="List the collectors and their lag.")
@click.option("--forget", metavar="GROUP", help="Drop a collector that will never come back.")
@json_option
def collect(
    redis_url: str,
    csv_path: Path | None,
    follow: bool,
    from_start: bool,
    event_path: Path | None,
    group: str | None,
    list_groups: bool,
    forget: str | None,
    as_json: bool,
) -> None:
    """Drain the results to one CSV, each exactly once, whatever is killed when."""
    _check_asked(csv_path, event_path, list_groups, forget)
    connection = Mesh(redis_url).connection
    if list_groups:
        _list_groups(connection, as_json)
        return
    if forget is not None:
        forget_group(connection, forget)
        click.echo(f"collector {forget} is forgotten", err=True)
        return
    if csv_path is None:
        raise ConfigError("say where to: --csv FILE")
    log_to_stderr(redis_url)
    if str(csv_path) == "-":
        if group or as_json or event_path:
            raise click.UsageError("--csv - goes with none of --group, --events and --json")
        stop = stop_on_signals() if follow else None
        print_csv(follow_results(connection, stop, after=START) if stop else read(connection))
        return
    collector = Collector(
        connection, csv_path, group=group, from_start=from_start, events=event_path
    )
    if follow:
        collector.follow(stop_on_signals())
    else:
        collector.drain()
    if as_json:
        print_json(
            "collected", {"csv": str(csv_path), "rows": collector.rows, "bad": collector.bad}
        )
    else:
        bad = f"; {collector.bad} entries set aside in {csv_path}.bad" if collector.bad else ""
        err().print(f"{collector.rows} rows added to {csv_path}{bad}")


def _check_asked(
    csv_path: Path | None, event_path: Path | None, list_groups: bool, forget: str | None
) -> None:
    """Refuse what would be passed over, or would wait for its own lock."""
    asked = {"--list": list_groups, "--forget": forget is not None, "--csv": csv_path is not None}
    said = [name for name, is_said in asked.items() if is_said]
    if len(said) > 1:
        raise click.UsageError(f"{' and '.join(said)} exclude each other: one at a time")
    if csv_path and event_path and csv_path.resolve() == event_path.resolve():
        raise click.UsageError("--csv and --events name one file: events have one of their own")


def _list_groups(connection: redis.Redis, as_json: bool) -> None:
    found = collectors(connection)
    if as_json:
        for group in found:
            print_json("collector", {**vars(group), "abandoned": group.is_abandoned})
    for group in [] if as_json else found:
        lag = "lag unknown" if group.lag is None else f"{group.lag} entries to read"
        behind = "" if group.behind_s is None else f", {in_time(group.behind_s)} behind"
        gone = f"; {not_run(group)}" if group.is_abandoned else ""
        click.echo(f"{group.name}: {lag}{behind}{gone}")
    if not found:
        click.echo("no collector is known; this makes one: ptzmesh collect --csv FILE", err=True)


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
@click.option(
    "--csv",
    "csv_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=no_dash("name the one that the run was collected into"),
    required=True,
    help="The file that the run was collected into.",
)
@json_option
def verify(redis_url: str, run: str, csv_path: Path, as_json: bool) -> None:
    """Prove that a file and a run's plan agree: each pair has exactly one row."""
    connection = Mesh(redis_url).connection
    found = verify_run(connection, resolve_run(connection, run), csv_path)
    wrong = {
        "missing": found.missing,
        "doubled": found.doubled,
        "unexpected": found.unexpected,
    }
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
