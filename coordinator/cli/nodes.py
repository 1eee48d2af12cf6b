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
    connection = server.connect(redis_url)
    server.check_server(connection, redis_url)
    found = read_nodes(connection)
    if as_json:
        for node in found:
            print_json("node", node.to_json())
        return
    if not found:
        click.echo("no node is registered; start one with: ptzmesh worker --name NAME", err=True)
        return
    styles = ["" if node.alive else "dim" for node in found]
    print_list([_cells(node) for node in found], ("seen", "clock", "cmd/s"), styles)
    for address, those in claims(found).items():
        click.echo(f"{in_dispute(address, those)}: only one of them answers there", err=True)
    for node in found:
        if node.settings_fault and node.alive:
            said = f"{node.name}: labels and limits stay as they were: {node.settings_fault}"
            click.echo(said, err=True)


def _links(node: Node) -> list[tuple[str, str]]:
    return [(f"link:{name}", str(capacity)) for name, capacity in node.links.items()]


def _cells(node: Node) -> dict[str, str]:
    rate, offset_ms = node.redis_commands_per_s, node.clock_offset_ms
    doubt_ms = node.clock_offset_uncertainty_ms
    labelled = (*node.labels.items(), *_links(node))
    return {
        "node": node.name,
        "address": node.address,
        "state": node.state,
        "seen": f"{in_time(node.seen_s)} ago",
        "clock": "" if offset_ms is None else in_offset(offset_ms, doubt_ms),
        "cmd/s": "" if rate is None else f"{rate:.1f}",
        "icmp": node.icmp,
        "iperf3": (node.iperf3 or "none") + ("" if node.accepts else ", connects only"),
        "labels": " ".join(f"{key}={value}" for key, value in labelled),
        "version": node.version,
    }
