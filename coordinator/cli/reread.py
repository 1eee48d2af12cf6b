"""The settings of a worker that runs, read again when their file has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from coordinator.cli.options import DEFAULT_CONFIG, read_config
from coordinator.cli.policy import NAMES, policy_of
from worker.errors import ConfigError
from worker.facts import Said

#: Place, size and time of change; None where there is no file.
Mark = tuple[int, int, int, int] | None


class Reread:
    """Gives a worker's labels and limits anew, once for each change of the settings file."""

    def __init__(self, context: click.Context, arguments: Sequence[str]) -> None:
        """Begin with a context that was just made from these arguments and the file."""
        self._context, self._arguments = context, tuple(arguments)
        self._config: str | None = context.find_root().params.get("config")
        self._path = Path(self._config) if self._config else DEFAULT_CONFIG
        self._mark = _mark_of(self._path)

    def __call__(self) -> Said | None:
        """
        Give what is said now; None where the file is as it was.

        Raises:
            ConfigError: The file has changed, and is wrong.
        """
        mark = _mark_of(self._path)
        if mark == self._mark:
            return None
        self._mark = mark
        try:
            values = self._values()
        except click.ClickException as exc:
            raise ConfigError(f"settings file ({self._path}): {exc.format_message()}") from exc
        policy = policy_of(**{name: values[name] for name in NAMES})
        return Said(labels=values["labels_"], policy=policy)

    def _values(self) -> Mapping[str, Any]:
        """Give the command's parameters; what its command line says wins over the file, as ever."""
        from coordinator.cli.group import COMMANDS, parameters

        old = self._context
        tables = read_config(self._config, {one: partial(parameters, one) for one in COMMANDS})
        own, arguments = tables.get("worker", {}), list(self._arguments)
        return old.command.make_context(
            old.info_name, arguments, old.parent, default_map=own
        ).params


def _mark_of(path: Path) -> Mark:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
