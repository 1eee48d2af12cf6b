"""The options of tests that saturate a link, for `ptzmesh run`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from coordinator.cli.terminal.units import BYTES, MBIT_PER_S, SECONDS
from worker.model.options import ThroughputOptions, UdpOptions

TCP, UDP = ThroughputOptions(), UdpOptions()

OPTIONS = (
    click.option(
        "-t",
        "--duration",
        type=SECONDS,
        default=TCP.duration_s,
        show_default=True,
        help="How long a throughput or udp test sends.",
    ),
    click.option(
        "--omit",
        type=SECONDS,
        default=TCP.omit_s,
        help="How long it sends before that, left out of the figures.",
    ),
    click.option(
        "-P",
        "--parallel",
        type=int,
        default=TCP.parallel,
        show_default=True,
        help="Streams of a test, in each direction.",
    ),
    click.option("--bidir", is_flag=True, help="Both directions at once: half as many tests."),
    click.option(
        "-R", "--reverse", is_flag=True, help="The target connects; the source still sends."
    ),
    click.option(
        "-b",
        "--bitrate",
        type=MBIT_PER_S,
        help="Rate of a test, in each direction, at most "
        f"[default: no limit; udp {UDP.bitrate_mbps:g}].",
    ),
    click.option("--bytes", "bytes_", type=BYTES, help="A test ends when so many bytes are sent."),
    click.option("--congestion", help="Congestion control of the sender, such as bbr."),
    click.option("--dscp", type=int, help="Differentiated services code point of the data."),
)


def transfer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, as the arguments `throughput` and `udp`."""

    @functools.wraps(command)
    def with_transfers(
        duration: float,
        omit: float,
        parallel: int,
        bidir: bool,
        reverse: bool,
        bitrate: float | None,
        bytes_: int | None,
        congestion: str | None,
        dscp: int | None,
        **others: Any,
    ) -> Any:
        common: dict[str, Any] = {
            "duration_s": duration,
            "omit_s": omit,
            "parallel": parallel,
            "bidir": bidir,
            "reverse": reverse,
            "bytes_limit": bytes_,
            "dscp": dscp,
        }
        return command(
            throughput=ThroughputOptions(**common, bitrate_mbps=bitrate, congestion=congestion),
            udp=UdpOptions(**common, bitrate_mbps=UDP.bitrate_mbps if bitrate is None else bitrate),
            **others,
        )

    for option in reversed(OPTIONS):
        with_transfers = option(with_transfers)
    return with_transfers
