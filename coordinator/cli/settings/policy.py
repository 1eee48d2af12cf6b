"""The options with which a node's operator limits what others may ask of it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from coordinator.cli.settings.options import names, names_option, parsed_by, with_options
from coordinator.cli.terminal.units import BYTES, MBIT_PER_S, SECONDS
from worker.model.names import parse_ports
from worker.model.policy import DEFAULT_PORTS, Policy, parse_hours, parse_links

#: Each gives a field of `Policy`, which has the parameter's name.
OPTIONS = (
    click.option(
        "--link",
        "links",
        multiple=True,
        callback=parsed_by(parse_links),
        metavar="NAME=N",
        help="Shared link on the node's way, and how many tests it carries at once; repeatable.",
    ),
    click.option(
        "--no-accept",
        "accepts_connections",
        is_flag=True,
        callback=parsed_by(operator.not_),
        help="Others cannot connect to the node (NAT): it is always the connecting side.",
    ),
    click.option(
        "--max-duration",
        "max_duration_s",
        type=SECONDS,
        help="Longest test that the node takes part in.",
    ),
    click.option(
        "--max-bitrate",
        "max_bitrate_mbps",
        type=MBIT_PER_S,
        help="Greatest rate of a test that the node takes.",
    ),
    click.option("--max-bytes-per-day", type=BYTES, help="Data budget of a UTC day for tests."),
    click.option(
        "--hours",
        multiple=True,
        callback=parsed_by(lambda hours: tuple(map(parse_hours, hours))),
        metavar="HH:MM-HH:MM",
        help="When the node may be tested, by its own clock; repeatable [default: always].",
    ),
    names_option(
        "--allow-source",
        "sources",
        callback=lambda *given: frozenset(names(*given)),
        help="Nodes that may ask this one for a test [default: all].",
    ),
    click.option(
        "--ports",
        metavar="FIRST-LAST",
        default="-".join(map(str, DEFAULT_PORTS)),
        show_default=True,
        callback=parsed_by(parse_ports),
        help="Ports of which the node listens on one while a test runs.",
    ),
    click.option(
        "--allow-unregistered-targets",
        is_flag=True,
        help="The node may ping, and time handshakes with, addresses of no registered node that "
        "a plan names.",
    ),
)


#: Their parameters.
NAMES = tuple(field.name for field in fields(Policy))


def policy_options(command: Callable[..., Any]) -> Any:
    """Add these options to a command, as one argument `policy`."""

    @functools.wraps(command)
    def with_policy(**given: Any) -> Any:
        own = {name: given.pop(name) for name in NAMES}
        return command(policy=Policy(**own), **given)

    return with_options(with_policy, OPTIONS)
