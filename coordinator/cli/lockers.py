"""`ptzmesh lockers`: who holds what, who waits, what is slow; reads only."""

from __future__ import annotations

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.cli.options import json_option, redis_option
from coordinator.cli.output import print_json
from coordinator.cli.screen import out
from worker import wire
from worker.monitor.locker_view import DEFAULT_PREFIX, MAX_COUNT, LockersView, read_lockers

#: A longer list is no longer looked at; `--json` has all.
WAITERS_SHOWN = SLOWEST_SHOWN = 5


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
    connection = wire.connect(redis_url)
    view = read_lockers(connection, prefix, count)
    if as_json:
        print_json("lockers", view.to_json())
        return
    out().print(lockers_view(view))


def lockers_view(view: LockersView) -> RenderableType:
    """Give what a person reads."""
    free = view.looked_at - len(view.lockers)
    head = f"{view.prefix}: {len(view.lockers)} held, {free} of {view.looked_at} free"
    parts: list[RenderableType] = [Text(head)]
    if view.lockers:
        parts.append(_held(view))
    if any(locker.node is None for locker in view.lockers):
        parts.append(Text("holder ?: a program that does not use worker.monitor"))
    if view.waiters:
        parts.append(_waiters(view))
    if view.slowest:
        parts.append(_slowest(view))
    return Group(*parts)


def seconds(value: float | None) -> str:
    """
    Write a duration for people.

    >>> [seconds(v) for v in (None, 0.0123, 7.26, 75.0, 36000.0)]
    ['?', '0.012 s', '7.3 s', '1 min 15 s', '10 h 00 min']
    """
    if value is None:
        return "?"
    if value < 60:
        return f"{value:.1f} s" if value >= 1 else f"{value:.3f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def _held(view: LockersView) -> Table:
    table = _table("locker", "holder", "pid", "held for", "expires in", "identifier")
    for locker in view.lockers:
        table.add_row(
            str(locker.locker),
            locker.node or "?",
            "" if locker.pid is None else str(locker.pid),
            seconds(locker.held_s),
            "never" if locker.left_s is None else seconds(locker.left_s),
            locker.identifier,
        )
    return table


def _waiters(view: LockersView) -> Table:
    table = _table("locker", "waited", "last seen", title="met a locker taken, within the hour")
    for waiter in view.waiters[:WAITERS_SHOWN]:
        table.add_row(str(waiter.locker), waiter.node, f"{seconds(waiter.seen_s)} ago")
    return table


def _slowest(view: LockersView) -> Table:
    table = _table("took", "operation", "locker", "node", "outcome", title="slowest, in two days")
    for slow in view.slowest[:SLOWEST_SHOWN]:
        table.add_row(
            seconds(slow.elapsed_s), slow.operation, str(slow.locker), slow.node, slow.outcome
        )
    return table


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left")
    numbers = {"locker", "pid", "held for", "expires in", "took", "last seen"}
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left")
    return table
