"""The options of the probes, for `ptzmesh run`: a flag for each that `worker.model.options` has."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from typing import Any

import click

from coordinator.cli.settings.options import Decorator, with_options
from coordinator.cli.terminal.units import BYTES, MBIT_PER_S, SECONDS
from worker.model.options import FLAG
from worker.model.probe import PROBES

#: Word of an option's name → how a person writes its value.
UNITS = {"s": SECONDS, "bytes": BYTES, "mbps": MBIT_PER_S}


def probe_options(command: Callable[..., Any]) -> Any:
    """Add the options of all probes; below `probe_option`, the command gets those asked for."""
    owners = _owners()

    @functools.wraps(command)
    def with_probes(probes: tuple[str, ...], **given: Any) -> Any:
        values: dict[str, dict[str, Any]] = {probe: {} for probe in probes}
        for parameter, owned in owners.items():
            value = given.pop(parameter)
            for probe, field in owned:
                # What was not given is left to the probe.
                if probe in values and value is not None:
                    # Of what is done by default, the flag is that it is not.
                    values[probe][field.name] = not value if field.default is True else value
        options = {probe: PROBES[probe].options(**own) for probe, own in values.items()}
        return command(probes=probes, options=options, **given)

    return with_options(
        with_probes, [_option(name, [field for _, field in own]) for name, own in owners.items()]
    )


probe_option = click.option(
    "--probe",
    "probes",
    multiple=True,
    type=click.Choice(list(PROBES)),
    default=("ping",),
    show_default=True,
    help="What is measured of each pair; repeatable, one phase each.",
)


def _owners() -> dict[str, list[tuple[str, Field[Any]]]]:
    """Return click's parameters → the probes, and their fields, that have this flag in common."""
    owners: dict[str, list[tuple[str, Field[Any]]]] = {}
    for name, probe in PROBES.items():
        for field in fields(probe.options):
            flag = max(field.metadata[FLAG].names, key=len)
            owners.setdefault(flag.strip("-").replace("-", "_"), []).append((name, field))
    return owners


def _option(parameter: str, owners: Sequence[Field[Any]]) -> Decorator[Any]:
    field, flag = owners[0], owners[0].metadata[FLAG]
    if isinstance(field.default, bool):
        return click.option(*flag.names, parameter, is_flag=True, help=flag.help)
    is_common = all(owner.default == field.default for owner in owners)
    default = field.default if is_common else None
    plain = int if "int" in str(field.type) else str
    units = (UNITS[word] for word in field.name.split("_") if word in UNITS)
    return click.option(
        *flag.names,
        parameter,
        type=next(units, plain),
        default=default,
        show_default=bool(default),
        help=flag.help,
    )
