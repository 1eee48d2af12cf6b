"""`ptzmesh nodes`: the nodes of the mesh, and who claims the address of another."""

from __future__ import annotations

import click

from coordinator.cli.settings.options import json_option, redis_option
from coordinator.cli.terminal.output import print_json
from coordinator.cli.terminal.screen import print_list
from coordinator.runs.nodes import claims, in_dispute
from worker.model.text import in_offset, in_time
from worker.wire.connection import server
from worker.wire.node_record import Node
from worker.wire.registry import read_nodes


@click.command(
    epilog="""\b
Examples:
  ptzmesh nodes
  ptzmesh nodes --json | jq -r 'select(.alive) | .name'
  ptzmesh nodes --redis redis://10.0.0.1
"""
)
@redis_option
@json_option
def nodes(redis_url: str, as_json: bool) -> None:
    """List the registered nodes."""
    registered = read_nodes(server.connect(redis_url, judged=True))
    if as_json:
        for node in registered:
            print_json("node", node.to_json())
        return
    if not registered:
        click.echo("no node is registered; start one with: ptzmesh worker --name NAME", err=True)
        return
    styles = ["" if node.alive else "dim" for node in registered]
    print_list([_cells(node) for node in registered], ("seen", "clock", "cmd/s", "MB/day"), styles)
    for address, those in claims(registered).items():
        click.echo(f"{in_dispute(address, those)}: only one of them answers there", err=True)
    for node in registered:
        if node.settings_fault and node.alive:
            why = f"labels and limits stay as they were: {node.settings_fault}"
            click.echo(f"{node.name}: {why}", err=True)


def _cells(node: Node) -> dict[str, str]:
    rate, offset_ms = node.redis_commands_per_s, node.clock_offset_ms
    daily = node.redis_bytes_per_day
    doubt_ms = node.clock_offset_uncertainty_ms
    links = [f"link:{name}={capacity}" for name, capacity in node.links.items()]
    return {
        "node": node.name,
        "address": node.address,
        "state": node.state,
        "seen": f"{in_time(node.seen_s)} ago",
        "clock": "" if offset_ms is None else in_offset(offset_ms, doubt_ms),
        "cmd/s": "" if rate is None else f"{rate:.1f}",
        "MB/day": "" if daily is None else f"{daily / 1e6:.1f}",
        "icmp": node.icmp,
        "iperf3": (node.iperf3 or "none") + ("" if node.accepts else ", connects only"),
        "labels": " ".join([*(f"{key}={value}" for key, value in node.labels.items()), *links]),
        "version": node.version,
    }
