"""`ptzmesh events`: what changed at the nodes, and when."""

from __future__ import annotations

import click

from coordinator.cli.settings.options import json_option, names_option, redis_option
from coordinator.cli.terminal.output import print_json
from coordinator.cli.terminal.screen import print_list
from coordinator.cli.terminal.signals import stop_on_signals
from coordinator.cli.terminal.units import SECONDS
from coordinator.results.events import Found, follow_events, read_events
from coordinator.results.stream import START, last_id
from worker.wire import scripts
from worker.wire.connection import server
from worker.wire.event import COLUMNS, Event

#: A person has no use for the id in the stream.
SHOWN = COLUMNS[:-1]


@click.command(
    epilog="""\b
Examples:
  ptzmesh events
  ptzmesh events --since 24h --node cam-1,hub
  ptzmesh events --json | jq -r 'select(.what == "address") | [.time, .node, .new] | @tsv'
"""
)
@redis_option
@click.option("--since", type=SECONDS, help="Only those from this long ago on, as 300, 2h or 7d.")
@names_option("--node", "nodes", help="Only those of these nodes.")
@click.option("--follow", is_flag=True, help="Print events as they come, until Ctrl-C.")
@json_option
def events(
    redis_url: str, since: float | None, nodes: tuple[str, ...], follow: bool, as_json: bool
) -> None:
    """List what changed at the nodes: address, tools, rights, labels, limits, version."""
    if since is not None and since < 0:
        raise click.BadParameter(f"{since:g} s lie ahead: say how long ago", param_hint="--since")
    connection = server.connect(redis_url, judged=True)
    after = START
    if since is not None:
        after = f"{max(0, int((scripts.redis_seconds(connection) - since) * 1000))}-0"
    until = last_id(connection)
    stopping = stop_on_signals() if follow else None
    past = list(_of_nodes(read_events(connection, after=after, until=until), nodes))
    if as_json or follow:
        for line in past:
            _print_line(*line, as_json)
    elif past:
        print_list([_cells(event) for _, event in past])
    else:
        which = "that is asked for " if nodes or since is not None else ""
        click.echo(f"no event {which}is in the stream", err=True)
    if stopping is not None:
        for line in _of_nodes(follow_events(connection, stopping, after=until), nodes):
            _print_line(*line, as_json)


def _of_nodes(events: Found, nodes: tuple[str, ...]) -> Found:
    return (line for line in events if not nodes or line[1].node in nodes)


def _print_line(stream_id: str, event: Event, as_json: bool) -> None:
    if as_json:
        print_json("event", event.to_json(stream_id))
    else:
        click.echo("  ".join(_cells(event).values()))


def _cells(event: Event) -> dict[str, str]:
    return {name: str(cell) or "none" for name, cell in zip(SHOWN, event.to_row(""), strict=False)}
