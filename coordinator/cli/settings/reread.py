"""The settings of a worker that runs, read again when their file has changed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import click

from coordinator.cli.settings.config import (
    CONFIG_MARK,
    DEFAULT_CONFIG,
    ConfigMark,
    mark_of_config,
    read_config,
)
from coordinator.cli.settings.policy import NAMES
from worker.model.errors import ConfigError
from worker.model.policy import Policy
from worker.node.registration.facts import Mark, Said

#: A file that was not changed for this long is complete: half of one may be valid, and allow what
#: the other half forbids.
SETTLED_S = 1.0


class Reread:
    """Gives a worker's labels and limits again, once for each change of the settings file."""

    def __init__(self, context: click.Context, arguments: Sequence[str]) -> None:
        """Begin with a context that was just made from these arguments and the file."""
        self._context, self._arguments = context, tuple(arguments)
        self._config: str | None = context.find_root().params.get("config")
        first: ConfigMark | None = context.meta.get(CONFIG_MARK, mark_of_config(self._config))
        self.judged: Mark = first
        self._seen, self._seen_at = first, float("-inf")

    def mark(self) -> ConfigMark | None:
        """Return what differs where the file is another than before."""
        return mark_of_config(self._config)

    def __call__(self) -> Said | None:
        """
        Return what is said now; None where the file is as it was, or was written only just now.

        Raises:
            ConfigError: The file has changed, and is wrong.
        """
        mark = self.mark()
        if mark != self._seen:
            self._seen, self._seen_at = mark, time.monotonic()
        if mark == self.judged or time.monotonic() < self._seen_at + SETTLED_S:
            return None
        wrong, said = None, None
        try:
            said = self._said(mark)
        except click.ClickException as exc:
            wrong = ConfigError(f"settings file ({self._path}): {exc.format_message()}")
        except ConfigError as exc:
            wrong = exc
        if self.mark() != mark:  # written again meanwhile
            return None
        self.judged = mark
        if wrong is not None:
            raise wrong
        return said

    @property
    def _path(self) -> str:
        return self._config or str(DEFAULT_CONFIG)

    def _said(self, mark: ConfigMark | None) -> Said:
        # No limit is taken away by a file that went missing, or that a full disk left empty.
        if mark is None:
            raise ConfigError(f"settings file ({self._path}) is gone")
        if mark.size == 0:
            raise ConfigError(f"settings file ({self._path}) is empty; for no limits say [worker]")
        values = self._values()
        own, before = {*NAMES, "labels"}, self._context.params
        others = (name for name in values if name not in own and values[name] != before.get(name))
        return Said(
            labels=values["labels"],
            policy=Policy(**{name: values[name] for name in NAMES}),
            later=tuple(sorted(others)),
        )

    def _values(self) -> Mapping[str, Any]:
        """Return the command's parameters; what its command line says wins over the file."""
        from coordinator.cli.group import COMMANDS, parameters

        old = self._context
        tables = read_config(self._config, {name: partial(parameters, name) for name in COMMANDS})
        own, arguments = tables.get("worker", {}), list(self._arguments)
        return old.command.make_context(
            old.info_name, arguments, old.parent, default_map=own
        ).params
