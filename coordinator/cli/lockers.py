"""`ptzmesh lockers`: who holds what, who waits, what is slow; reads only."""

from __future__ import annotations

import click
from rich.console import Group, RenderableType
from rich.text import Text

from coordinator.cli.settings.options import json_option, redis_option
from coordinator.cli.terminal.output import print_json
from coordinator.cli.terminal.screen import out
from coordinator.cli.terminal.tables import columns_of, tables_that_fit
from worker.model.text import in_time
from worker.monitor.lockers.view import DEFAULT_PREFIX, MAX_COUNT, LockersView, read_lockers
from worker.wire.connection import server

#: A longer list is no longer looked at; `--json` has all.
WAITERS_SHOWN = SLOWEST_SHOWN = 5
NUMBERS = ("locker", "pid", "held for", "expires in", "took", "last seen")


@click.command(
    epilog="""\b
Examples:
  ptzmesh lockers
  ptzmesh lockers --prefix file_lockers --count 16
  ptzmesh lockers --json | jq -r '.lockers[] | select(.node == null) | .locker'
"""
)
@redis_option
@click.option(
    "--prefix", default=DEFAULT_PREFIX, show_default=True, help="How the lockers' keys begin."
)
@click.option(
    "--count",
    type=click.IntRange(1, MAX_COUNT),
    help="Lockers 0 to N-1 are looked at [default: as many as a holder said, at least 100].",
)
@json_option
def lockers(redis_url: str, prefix: str, count: int | None, as_json: bool) -> None:
    """Show who holds which locker, since when and for how long still."""
    connection = server.connect(redis_url)
    view = read_lockers(connection, prefix, count)
    if as_json:
        print_json("lockers", view.to_json())
        return
    console = out()
    console.print(lockers_view(view, console.width))


def lockers_view(view: LockersView, width: int) -> RenderableType:
    """Return what a person reads, in tables that are no wider than this."""
    free = view.looked_at - len(view.lockers)
    head = f"{view.prefix}: {len(view.lockers)} held, {free} of {view.looked_at} free"
    parts: list[RenderableType] = [Text(head)]
    held = [
        {
            "locker": str(locker.locker),
            "holder": locker.node or "?",
            "pid": "" if locker.pid is None else str(locker.pid),
            "held for": in_time(locker.held_s),
            "expires in": "never" if locker.left_s is None else in_time(locker.left_s),
            "identifier": locker.identifier,
        }
        for locker in view.lockers
    ]
    waiters = [
        {
            "locker": _number(waiter.locker),
            "waited": waiter.node,
            "last seen": f"{in_time(waiter.seen_s)} ago",
        }
        for waiter in view.waiters[:WAITERS_SHOWN]
    ]
    slowest = [
        {
            "took": in_time(slow.elapsed_s),
            "operation": slow.operation,
            "locker": _number(slow.locker),
            "node": slow.node,
            "outcome": slow.outcome,
        }
        for slow in view.slowest[:SLOWEST_SHOWN]
    ]
    if held:
        parts += tables_that_fit(columns_of(held, NUMBERS), width)
    if any(locker.node is None for locker in view.lockers):
        parts.append(Text("holder ?: a program that does not use worker.monitor"))
    for title, rows in (
        ("met a locker taken, within the hour", waiters),
        ("slowest, in two days", slowest),
    ):
        if rows:
            parts += tables_that_fit(columns_of(rows, NUMBERS), width, title)
    return Group(*parts)


def _number(locker: int | None) -> str:
    return "any" if locker is None else str(locker)
