"""`ptzmesh collect`: drain the stream to a CSV; the collectors, and how far each is."""

from __future__ import annotations

from pathlib import Path

import click
import redis

from coordinator.cli.settings.options import file_option, json_option, redis_option
from coordinator.cli.terminal.logs import log_to_stderr
from coordinator.cli.terminal.output import print_csv, print_json
from coordinator.cli.terminal.screen import err
from coordinator.cli.terminal.signals import stop_on_signals
from coordinator.collect.collector import Collector
from coordinator.collect.groups import collectors, not_run
from coordinator.collect.groups import forget as forget_group
from coordinator.results.results import follow as follow_results
from coordinator.results.results import read
from coordinator.results.stream import START
from worker.model.errors import ConfigError
from worker.model.text import in_time
from worker.wire.connection import server


@click.command(
    epilog="""\b
Examples:
  ptzmesh collect --csv network_metrics.csv
  ptzmesh collect --csv /data/network_metrics.csv --follow
  ptzmesh collect --list
"""
)
@redis_option
@file_option(
    "--csv",
    "csv_path",
    help="File to which rows are added; made if it is not there. `-` prints all rows that are in "
    "the stream, and remembers nothing.",
)
@click.option("--follow", is_flag=True, help="Go on until SIGTERM or Ctrl-C; waits for Redis.")
@click.option(
    "--from-start",
    is_flag=True,
    help="Write all that the stream still has, also what an earlier file of this collector holds.",
)
@file_option(
    "--events",
    "event_path",
    instead="ptzmesh events --json prints events",
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
    connection = server.connect(redis_url, judged=True)
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
    given = [name for name, is_given in asked.items() if is_given]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other: one at a time")
    if csv_path and event_path and csv_path.resolve() == event_path.resolve():
        raise click.UsageError("--csv and --events name one file: events have one of their own")


def _list_groups(connection: redis.Redis, as_json: bool) -> None:
    known = collectors(connection)
    for group in known:
        if as_json:
            print_json("collector", {**vars(group), "abandoned": group.is_abandoned})
            continue
        lag = "lag unknown" if group.lag is None else f"{group.lag} entries to read"
        behind = "" if group.behind_s is None else f", {in_time(group.behind_s)} behind"
        gone = f"; {not_run(group)}" if group.is_abandoned else ""
        click.echo(f"{group.name}: {lag}{behind}{gone}")
    if not known:
        click.echo("no collector is known; this makes one: ptzmesh collect --csv FILE", err=True)
