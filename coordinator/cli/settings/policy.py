"""The options with which a node's operator limits what others may ask of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import click

from coordinator.cli.settings.options import names
from coordinator.cli.terminal.units import BYTES, MBIT_PER_S, SECONDS
from worker.model.policy import (
    DEFAULT_PORTS,
    Policy,
    parse_hours,
    parse_links,
    parse_ports,
    parse_sources,
)

OPTIONS = (
    click.option(
        "--link",
        "links",
        multiple=True,
        metavar="NAME=N",
        help="Shared link on the node's way, and how many tests it carries at once; repeatable.",
    ),
    click.option(
        "--no-accept",
        is_flag=True,
        help="Others cannot connect to the node (NAT): it is always the connecting side.",
    ),
    click.option("--max-duration", type=SECONDS, help="Longest test that the node takes part in."),
    click.option(
        "--max-bitrate", type=MBIT_PER_S, help="Greatest rate of a test that the node takes."
    ),
    click.option("--max-bytes-per-day", type=BYTES, help="Data budget of a UTC day for tests."),
    click.option(
        "--hours",
        multiple=True,
        metavar="HH:MM-HH:MM",
        help="When the node may be tested, by its own clock; repeatable [default: always].",
    ),
    click.option(
        "--allow-source",
        "sources",
        multiple=True,
        callback=names,
        help="Nodes that may ask this one for a test [default: all].",
    ),
    click.option(
        "--ports",
        metavar="FIRST-LAST",
        default="-".join(map(str, DEFAULT_PORTS)),
        show_default=True,
        help="Ports of which the node listens on one while a test runs.",
    ),
    click.option(
        "--allow-unregistered-targets",
        is_flag=True,
        help="The node may ping, and time handshakes with, addresses of no registered node that "
        "a plan names.",
    ),
)


def policy_of(
    *,
    links: Sequence[str],
    no_accept: bool,
    max_duration: float | None,
    max_bitrate: float | None,
    max_bytes_per_day: int | None,
    hours: Sequence[str],
    sources: Sequence[str],
    ports: str,
    allow_unregistered_targets: bool,
) -> Policy:
    """
    Make the limits of what was said.

    Raises:
        ConfigError: One of them makes no sense.
    """
    return Policy(
        max_duration_s=max_duration,
        max_bitrate_mbps=max_bitrate,
        max_bytes_per_day=max_bytes_per_day,
        hours=tuple(map(parse_hours, hours)),
        sources=parse_sources(sources),
        accepts_connections=not no_accept,
        ports=parse_ports(ports),
        links=parse_links(links),
        allow_unregistered_targets=allow_unregistered_targets,
    )


#: Parameters of a command that have to do with them.
NAMES = tuple(signature(policy_of).parameters)


def policy_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, as one argument `policy`."""

    @functools.wraps(command)
    def with_policy(**given: Any) -> Any:
        own = {name: given.pop(name) for name in NAMES}
        return command(policy=policy_of(**own), **given)

    for option in reversed(OPTIONS):
        with_policy = option(with_policy)
    return with_policy
