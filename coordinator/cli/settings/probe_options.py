"""The options of the probes, for `ptzmesh run`: a flag for each that `worker.model.options` has."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from dataclasses import Field, fields
from typing import Any

import click

from coordinator.cli.terminal.units import BYTES, MBIT_PER_S, SECONDS
from worker.model.options import FLAG, Flag, Options
from worker.model.probe import PROBES

#: Word of an option's name → how a person writes its value.
UNITS = {"s": SECONDS, "bytes": BYTES, "mbps": MBIT_PER_S}


def probe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Take the options of all probes; below `probe_option`, the command gets those asked for."""

    @functools.wraps(command)
    def with_probes(probes: tuple[str, ...], **given: Any) -> Any:
        values = {parameter: given.pop(parameter) for parameter in {p for *_, p in _asked(PROBES)}}
        return command(probes=probes, options=_options(probes, values), **given)

    for option in reversed(list(_options_of_all())):
        with_probes = option(with_probes)
    return with_probes


probe_option = click.option(
    "--probe",
    "probes",
    multiple=True,
    type=click.Choice(list(PROBES)),
    default=("ping",),
    show_default=True,
    help="What is measured of each pair; repeatable, one phase each.",
)


def _asked(probes: Collection[str]) -> Iterator[tuple[str, Field[Any], Flag, str]]:
    """Yield each option of these probes: its probe, its field, its flag, and click's parameter."""
    for probe in probes:
        for field in fields(PROBES[probe].options):
            flag: Flag = field.metadata[FLAG]
            parameter = max(flag.names, key=len).strip("-").replace("-", "_")
            yield probe, field, flag, parameter


def _options(probes: Collection[str], values: dict[str, Any]) -> dict[str, Options]:
    """Make the options of probes; what was not said is left to them."""
    kwargs: dict[str, dict[str, Any]] = {probe: {} for probe in probes}
    for probe, field, _, parameter in _asked(kwargs):
        if (value := values[parameter]) is not None:
            # Of what is done by default, the flag is that it is not.
            kwargs[probe][field.name] = not value if field.default is True else value
    return {probe: PROBES[probe].options(**given) for probe, given in kwargs.items()}


def _options_of_all() -> Iterator[Callable[..., Any]]:
    """Yield one click option a flag: some probes have it in common, by default not always alike."""
    first: dict[str, tuple[Field[Any], Flag]] = {}
    defaults: dict[str, set[Any]] = {}
    for _, field, flag, parameter in _asked(PROBES):
        first.setdefault(parameter, (field, flag))
        defaults.setdefault(parameter, set()).add(field.default)
    for parameter, (field, flag) in first.items():
        if isinstance(field.default, bool):
            yield click.option(*flag.names, parameter, is_flag=True, help=flag.help)
            continue
        default = field.default if len(defaults[parameter]) == 1 else None
        plain = int if "int" in str(field.type) else str
        units = (UNITS[word] for word in field.name.split("_") if word in UNITS)
        yield click.option(
            *flag.names,
            parameter,
            type=next(units, plain),
            default=default,
            show_default=bool(default),
            help=flag.help,
        )
