"""`ptzmesh limits`: how much of this Redis the results may take, for the whole mesh."""

from __future__ import annotations

import json

import click

from coordinator.cli.options import json_option, redis_option
from worker import keyspace, wire


@click.command(
    epilog="""\b
Examples:
  ptzmesh limits
  ptzmesh limits --stream-bytes 67108864
  ptzmesh limits --stream-entries 200000
"""
)
@redis_option
@click.option("--stream-bytes", type=click.IntRange(100_000), help="Memory of the results stream.")
@click.option("--stream-entries", type=click.IntRange(1_000), help="Entries in it.")
@json_option
def limits(
    redis_url: str, stream_bytes: int | None, stream_entries: int | None, as_json: bool
) -> None:
    """Show or set the caps of the results stream; a full stream pushes back, it never drops."""
    connection = wire.connect(redis_url)
    wire.check_server(connection, redis_url)
    asked = {"stream_bytes": stream_bytes, "stream_entries": stream_entries}
    for name, value in asked.items():
        if value is not None:
            connection.hset(keyspace.LIMITS, name, value)
    caps = wire.read_limits(connection)
    used = {
        "stream_entries": connection.xlen(keyspace.RESULTS),
        "stream_bytes": connection.memory_usage(keyspace.RESULTS) or 0,
    }
    if as_json:
        click.echo(json.dumps({"cap": caps, "used": used}))
        return
    for name, cap in caps.items():
        click.echo(f"{name}: {used[name]:,} of {cap:,}")
