"""`ptzmesh limits`: how much of this Redis the mesh may use, for all its nodes together."""

from __future__ import annotations

import click

from coordinator.cli.settings.options import json_option, redis_option
from coordinator.cli.terminal.output import print_json
from coordinator.cli.terminal.units import PERCENT, STREAM_BYTES
from coordinator.runs.footprint import used_of_limits
from worker.wire import keyspace
from worker.wire.connection import server
from worker.wire.registry import read_nodes
from worker.wire.room import read_limits


@click.command(
    epilog="""\b
Examples:
  ptzmesh limits
  ptzmesh limits --stream-bytes 67108864
  ptzmesh limits --stream-entries 200000
  ptzmesh limits --results-per-s 1000 --redis-memory-pct 60
"""
)
@redis_option
@click.option("--stream-bytes", type=STREAM_BYTES, help="Memory of the results stream.")
@click.option("--stream-entries", type=click.IntRange(1_000), help="Entries in the results stream.")
@click.option(
    "--run-bytes",
    type=STREAM_BYTES,
    help="Memory of what is kept of runs; beyond it the oldest ended ones are forgotten.",
)
@click.option("--results-per-s", type=click.IntRange(10), help="Results that are added a second.")
@click.option(
    "--redis-memory-pct",
    type=PERCENT,
    help="Percent of Redis' maxmemory, by whatever uses it, beyond which no result is added.",
)
@click.option(
    "--commands-per-s",
    type=click.IntRange(10),
    help="Commands that all nodes send a second, beyond which no run is started.",
)
@json_option
def limits(redis_url: str, as_json: bool, **asked: int | None) -> None:
    """
    Show or set what the mesh may use of the Redis that it shares.

    A result that is over a limit waits on its node's disk; nothing is dropped.
    """
    connection = server.connect(redis_url, judged=True)
    for name, value in asked.items():
        if value is not None:
            connection.hset(keyspace.LIMITS, name, value)
    shares = used_of_limits(connection, read_nodes(connection), connection.info("memory"))
    used = {name: round(share) for name, share in shares.items() if share is not None}
    caps = read_limits(connection)
    if as_json:
        print_json("limits", {"cap": caps, "used": used})
        return
    for name, cap in caps.items():
        share = f"{used[name]:,} of {cap:,}" if name in used else f"at most {cap:,}"
        click.echo(f"{name}: {share}")
