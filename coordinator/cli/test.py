"""`ptzmesh test`: one target over time, from here or from nodes; a picture and JSON in the end."""

from __future__ import annotations

import operator
import socket
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import click
import redis
from click.core import ParameterSource

from coordinator.cli.settings.options import (
    FOLDER,
    family_options,
    json_option,
    names_option,
    parsed_by,
    redis_option,
)
from coordinator.cli.terminal.output import print_json
from coordinator.cli.terminal.screen import err, out
from coordinator.cli.terminal.signals import stop_on_signals
from coordinator.cli.terminal.units import MBIT_PER_S, SECONDS
from coordinator.cli.view.series_view import LiveView, results, round_line, summary_line
from coordinator.mesh import Mesh
from coordinator.series.files import PERSISTENCE, DataNotWritten, default_folder, save, usable
from coordinator.series.here import IPERF3_PORT, ShouldStop, from_here
from coordinator.series.nodes import from_nodes, plan_rounds
from coordinator.series.options import SeriesOptions
from coordinator.series.plot import why_no_picture
from coordinator.series.series import Round, Series
from worker.host.machine import is_own
from worker.host.resolve import resolve
from worker.identity.identity import is_here
from worker.model.errors import ConfigError, RunIncomplete, ToolError
from worker.model.names import NAME, IpLiteral, NodeName, plain_ip, valid_address
from worker.model.options import ThroughputOptions
from worker.model.plan import TargetNode
from worker.probes.icmp.engine import icmp_capability
from worker.probes.iperf3.tool import NOT_THERE, Iperf3, find_iperf3, why_unable
from worker.wire.connection import server
from worker.wire.registry import read_records

DEFAULT = SeriesOptions()
#: The shortest that iperf3 can: a round is to measure a link, not to fill it.
TEST_LENGTH_S = 1.0
#: A source's failures are one line each; more than this are no longer read.
MAX_FAILURES_SHOWN = 3


Rounds = Callable[..., Iterator[Round]]


@click.command(
    epilog="""\b
Examples:
  ptzmesh test 127.0.0.1 -d 5 -i 1 --out .                     from here
  ptzmesh test hub --nodes cam-1,cam-east -d 4 -i 2 --out .    from two nodes
  ptzmesh test hub -d 3 -i 1 --no-plot --out . --json | jq .latency_ms
"""
)
@redis_option
@click.argument("target")
@click.option(
    "-d",
    "-t",
    "--duration",
    "duration_s",
    type=SECONDS,
    default=DEFAULT.duration_s,
    show_default=True,
    help="Time in which rounds begin.",
)
@click.option(
    "-i",
    "--interval",
    "interval_s",
    type=SECONDS,
    default=DEFAULT.interval_s,
    show_default=True,
    help="Time from one round to the next.",
)
@click.option(
    "-c",
    "--count",
    type=int,
    default=DEFAULT.count,
    show_default=True,
    help="Echoes in each round.",
)
@click.option(
    "--no-warm-up",
    "warm_up",
    is_flag=True,
    callback=parsed_by(operator.not_),
    help="Send no echo ahead of a round's first, which wakes ARP and radios.",
)
@names_option("--nodes", help="Test from these nodes to a node [default: from here].")
@family_options("Test the target by")
@click.option("--throughput", is_flag=True, help="An iperf3 test in every round; see --bitrate.")
@click.option(
    "--test-length",
    type=SECONDS,
    help=f"How long an iperf3 test sends [default: {TEST_LENGTH_S:g}].",
)
@click.option(
    "-b", "--bitrate", type=MBIT_PER_S, help="Rate of an iperf3 test, at most [default: no limit]."
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help=f"Port of the target's iperf3 server, when from here [default: {IPERF3_PORT}].",
)
@click.option(
    "--out",
    "folder",
    type=FOLDER,
    help=f"Folder of the files [default: {PERSISTENCE} where it can be written, else here].",
)
@click.option("--no-plot", is_flag=True, help="Only the JSON file, no picture.")
@json_option
def test(
    redis_url: str,
    target: str,
    nodes: tuple[NodeName, ...],
    family: int | None,
    throughput: bool,
    test_length: float | None,
    bitrate: float | None,
    port: int | None,
    folder: Path | None,
    no_plot: bool,
    as_json: bool,
    **of_rounds: Any,
) -> None:
    """
    Test the way to TARGET for a while; leave a picture and a JSON file.

    TARGET is an address or a host name; or a node's name, where Redis is set and knows it.
    """
    if nodes and port is not None:
        raise ConfigError("port is for a test from here; nodes choose ports of their own")
    ctx = click.get_current_context()
    tested = _throughput(throughput, test_length, bitrate, port)
    options = SeriesOptions(throughput=tested, **of_rounds)
    rounds: Rounds
    if nodes:
        sources, mesh = list(dict.fromkeys(nodes)), Mesh(redis_url)
        plan = plan_rounds(mesh, sources, target, options, family)
        address = plan.nodes[plan.index_of[target]].address
        rounds = partial(from_nodes, mesh, plan, options)
    else:
        is_chosen = ctx.get_parameter_source("redis_url") is not ParameterSource.DEFAULT
        address = _address(redis_url if is_chosen else None, target, family)
        sources = [NodeName(socket.gethostname())]
        node = TargetNode(name=NodeName(target), address=address)
        rounds = partial(
            from_here, sources[0], node, options, iperf3=_iperf3(options), port=port or IPERF3_PORT
        )
    obstacle = None if no_plot else why_no_picture()
    if obstacle is not None:
        err().print(f"no picture: {obstacle}")
    folder = usable(folder or default_folder())
    series = Series(
        target=target,
        address=address,
        sources=sources,
        options=options,
        started_at=datetime.now(timezone.utc),
    )
    stopping = stop_on_signals()
    try:
        _measure(series, rounds, stopping, as_json)
    finally:
        series.ended_at, series.interrupted = datetime.now(timezone.utc), stopping()
        _save(series, folder, plot=not no_plot and obstacle is None, as_json=as_json)
    if series.interrupted:
        ctx.exit(130)
    failures = series.failures()
    if failures:
        more = len(failures) - MAX_FAILURES_SHOWN
        shown = failures[:MAX_FAILURES_SHOWN] + ([f"{more} more"] if more > 0 else [])
        raise RunIncomplete("; ".join(shown))


def _throughput(
    asked: bool, length_s: float | None, bitrate_mbps: float | None, port: int | None
) -> ThroughputOptions | None:
    if asked:
        length_s = TEST_LENGTH_S if length_s is None else length_s
        return ThroughputOptions(duration_s=length_s, bitrate_mbps=bitrate_mbps)
    settings = {"test-length": length_s, "bitrate": bitrate_mbps, "port": port}
    for name, value in settings.items():
        if value is not None:
            raise ConfigError(f"{name} is of a throughput test; say --throughput")
    return None


def _iperf3(options: SeriesOptions) -> Iperf3:
    """Return this machine's, where a test from here may begin and asks for it."""
    if icmp_capability() == "none":
        raise ToolError("this user may not ping; see docs/privileges.md")
    if options.throughput is None:
        return NOT_THERE
    iperf3 = find_iperf3()
    obstacle = why_unable(iperf3, options.throughput)
    if obstacle is not None:
        raise ToolError(obstacle)
    return iperf3


def _address(redis_url: str | None, target: str, family: int | None) -> IpLiteral:
    """
    Return the literal address of a node of that name, else of a host.

    Raises:
        ConfigError: It is neither, or a node that from here is at this machine's own address.
    """
    record, trouble = None, ""
    if redis_url and NAME.fullmatch(target) and plain_ip(target) is None:
        try:
            with server.connect(redis_url) as connection:
                record = read_records(connection, [node := NodeName(target)]).get(node)
        except redis.RedisError:
            # Not the end: a network in trouble is what this command is for.
            trouble = f"Redis at {server.safe_url(redis_url)} does not answer"
    host = valid_address(target if record is None else record.address)
    # A registered link-local address has an interface of that node, a given one has one of here.
    literals = resolve(host, family, own_zones=record is None).literals
    if not literals:
        raise ConfigError(_unknown(target, host, family, trouble, is_node=record is not None))
    if trouble:
        err().print(f"{trouble}, so {target} is taken for a host name")
    if record is not None and is_own(literals[0]) and not is_here(record):
        raise ConfigError(
            f"target ({target}) is registered at {literals[0]}, which from here is this machine "
            f"itself; start it with an --address that leads to it, or test it from another node"
        )
    return literals[0]


def _unknown(target: str, host: str, family: int | None, trouble: str, *, is_node: bool) -> str:
    kind = "" if family is None else f" IPv{family}"
    if not is_node:
        to = f" to an{kind} address" if kind else ""
        why = trouble or "no node of that name is known"
        return f"target ({target}) does not resolve{to}, and {why}"
    remedy = ": ptzmesh test --nodes tests it from where it resolves"
    if kind:
        remedy = f"; leave out -{family}, or give it an address of that kind"
    return f"target ({target}) is a node at {host}, of which no{kind} address is known here{remedy}"


def _measure(series: Series, rounds: Rounds, stopping: ShouldStop, as_json: bool) -> None:
    """Measure to the end or to Ctrl-C, and show it as it comes."""
    console = out()
    if console.is_terminal and not as_json:
        view = LiveView(series, console)

        def should_stop() -> bool:
            view.tick()
            return stopping()

        with view.live:
            for measured in rounds(should_stop=should_stop):
                series.add(measured)
                view.add()
        console.print(series.title, style="bold")
        console.print(results(series, console.width))
        return
    if not as_json:
        err().print(series.title)
    for measured in rounds(should_stop=stopping):
        series.add(measured)
        if as_json:
            print_json("round", measured.to_json())
        else:
            click.echo(round_line(measured))
    if not as_json:
        for source in series.sources:
            click.echo(summary_line(series, source))


def _save(series: Series, folder: Path, *, plot: bool, as_json: bool) -> None:
    if not any(series.arrived.values()):
        if series.interrupted:
            err().print("no round was finished, so there is nothing to write")
        return
    try:
        for kind, path in save(series, folder, plot=plot):
            err().print(f"{kind} in {path.resolve()}")
    except DataNotWritten:
        if not as_json:  # where each round has been printed already
            print_json("series", series.to_json())
        raise
