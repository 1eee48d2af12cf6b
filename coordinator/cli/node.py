"""`ptzmesh worker`, `ptzmesh nodes`: be a node, see the nodes."""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path

import click
from rich.text import Text

from coordinator.cli.options import ARGUMENTS, json_option, labels, redis_option
from coordinator.cli.policy import policy_options
from coordinator.cli.reread import Reread
from coordinator.cli.terminal.logs import log_to_stderr
from coordinator.cli.terminal.output import print_json
from coordinator.cli.terminal.screen import print_list
from coordinator.cli.terminal.tables import Column
from coordinator.runs.nodes import Node, claims, in_dispute, read_nodes
from worker import __version__
from worker.model.names import own_name, valid_address
from worker.model.policy import Policy
from worker.model.text import in_offset, in_time
from worker.wire import keyspace
from worker.wire.connection import server


def default_state_dir() -> Path:
    """
    Give the folder for what a node keeps on disk: systemd's, root's, or the user's own.

    A user id that no file knows, as of a container, has `/` for its home, as Docker gives it.
    """
    if os.environ.get("STATE_DIRECTORY"):  # set by systemd's StateDirectory=
        return Path(os.environ["STATE_DIRECTORY"].split(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/ptzmesh")
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    if base.is_absolute():  # anything else is to be ignored, says the XDG specification
        return base / "ptzmesh"
    try:
        return Path.home() / ".local" / "state" / "ptzmesh"
    except RuntimeError:
        return Path("/.local/state/ptzmesh")


@click.command(
    epilog="""\b
Examples:
  PTZMESH_REDIS_URL=redis://:secret@10.0.0.1 ptzmesh worker
  ptzmesh worker --name cam-7 --address 10.8.0.7 --label site=roof
  ptzmesh worker --link cell-7=1 --max-bitrate 20 --max-bytes-per-day 2000000000
"""
)
@redis_option
@click.option(
    "--name",
    envvar=["PTZMESH_WORKER_NAME", "PTZMESH_NODE"],
    help="Name of the node, unique in the mesh [default: the host name].",
)
@click.option("--address", help="Where others reach the node [default: its address towards Redis].")
@click.option(
    "--label",
    "labels_",
    multiple=True,
    callback=labels,
    metavar="KEY=VALUE",
    help="Label of the node, for `run --label`; repeatable.",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the node for results that wait for Redis [default: by user].",
)
@policy_options
@click.option(
    "--no-wait",
    is_flag=True,
    help="End at once, with exit code 3, when Redis is not there yet.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log what is done, not only what is wrong.")
def worker(
    redis_url: str,
    name: str | None,
    address: str | None,
    labels_: dict[str, str],
    state_dir: Path | None,
    policy: Policy,
    no_wait: bool,
    verbose: bool,
) -> None:
    """
    Make this machine a node of the mesh, until SIGTERM or Ctrl-C.

    A network or a Redis that is not there yet is waited for.
    """
    from coordinator.cli.patience import say_no_more
    from coordinator.runs.advance import advance
    from worker.identity.answering import answer
    from worker.identity.context import NodeContext
    from worker.node.allowlist import AllowList, by_fields
    from worker.node.settings import NodeSettings
    from worker.node.supervisor import Supervisor
    from worker.node.sweep import sweep
    from worker.transfer.answer import Request
    from worker.transfer.far import serve

    log_to_stderr(redis_url, verbose)
    context = click.get_current_context()
    settings = NodeSettings(
        name=own_name(socket.gethostname() if name is None else name),
        redis_url=redis_url,
        address=None if address is None else valid_address(address),
        labels=labels_,
        state_dir=state_dir or default_state_dir(),
        version=__version__,
        policy=policy,
        reread=Reread(context, context.meta[ARGUMENTS]),
        waits_for_redis=not no_wait,
    )
    if not no_wait:
        say_no_more()  # the agent says it, with the cause

    def allow_list(context: NodeContext) -> AllowList:
        def carry_on(run: str) -> None:
            advance(server.connect(context.redis_url), run, patient=True)

        return {
            keyspace.SWEEP: functools.partial(sweep, context),
            keyspace.SERVE: by_fields(Request, functools.partial(serve, context)),
            keyspace.ADVANCE: carry_on,
            keyspace.ANSWER: functools.partial(answer, context),
        }

    Supervisor(settings, allow_list).run()


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
    print_list(_columns(found))
    for address, those in claims(found).items():
        click.echo(f"{in_dispute(address, those)}: only one of them answers there", err=True)
    for node in found:
        if node.settings_fault and node.alive:
            said = f"{node.name}: labels and limits stay as they were: {node.settings_fault}"
            click.echo(said, err=True)


def _links(node: Node) -> list[tuple[str, str]]:
    return [(f"link:{name}", str(capacity)) for name, capacity in node.links.items()]


def _columns(found: list[Node]) -> list[Column]:
    rows = [_cells(node) for node in found]
    styles = ["" if node.alive else "dim" for node in found]
    return [
        Column(
            name,
            [Text(row[name], style=style) for row, style in zip(rows, styles, strict=True)],
            is_number=name in ("seen", "clock", "cmd/s"),
        )
        for name in rows[0]
    ]


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
