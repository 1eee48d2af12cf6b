"""Options that several commands share, and the settings file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from worker.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_CONFIG = Path("/etc/ptzmesh.toml")
DEFAULT_REDIS = "redis://127.0.0.1:6379/0"

redis_option = click.option(
    "--redis",
    "redis_url",
    envvar=["PTZMESH_REDIS_URL", "REDIS_URL"],
    default=DEFAULT_REDIS,
    show_default=True,
    metavar="URL",
    help="Redis of the mesh; a password belongs in PTZMESH_REDIS_URL, not here.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


#: Options that are called otherwise on the command line.
_PARAMETERS = {
    "redis": "redis_url",
    "label": "labels_",
    "csv": "csv_path",
    "json": "as_json",
    "probe": "probes",
    "from": "sources",
    "to": "targets",
    "bytes": "bytes_",
    "link": "links",
    "allow_source": "sources",
}


def redis_place() -> str:
    """Name the Redis of the running command, without its secrets, for messages."""
    from worker import wire

    context = click.get_current_context(silent=True)
    url = context.params.get("redis_url") if context else None
    return wire.safe_url(url or os.environ.get("PTZMESH_REDIS_URL") or DEFAULT_REDIS)


def names(_ctx: click.Context, _param: click.Parameter, value: Iterable[str]) -> tuple[str, ...]:
    """Take node names, given several times or with commas between."""
    from worker import wire

    split = [name.strip() for text in value for name in text.split(",")]
    return tuple(wire.valid_name(name) for name in split)


def labels(_ctx: click.Context, _param: click.Parameter, value: Iterable[str]) -> dict[str, str]:
    """Take labels as key=value."""
    from worker import wire

    pairs = [text.partition("=") for text in value]
    for key, sign, content in pairs:
        if not sign or not wire.NAME.fullmatch(key) or len(content) > 128:
            raise ConfigError(f"label ({key[:80]!r}) must be written as key=value")
    return {key: content for key, _, content in pairs}


def read_config(
    path: str | None, parameters_of: Mapping[str, Callable[[], Iterable[str]]]
) -> dict[str, Any]:
    """
    Read the settings file: a table a command, an entry an option, dashes as underscores.

    Flags and PTZMESH_* variables win over it. `redis` at the top is for all commands.

    Args:
        path: The file; None is `DEFAULT_CONFIG`, where it is.
        parameters_of: Gives, by command, the names that its table may have.

    Raises:
        ConfigError: It cannot be read, is no TOML, or has an entry that nothing reads.
    """
    chosen = Path(path) if path else DEFAULT_CONFIG
    if not path and not chosen.exists():
        return {}
    raw = _read_toml(chosen)
    url = raw.pop("redis", None)
    settings: dict[str, Any] = {}
    for command, names_of in parameters_of.items():
        table = raw.pop(command, None)
        settings[command] = {"redis_url": url} if url else {}
        if table is not None:
            settings[command] |= _table(chosen, command, table, set(names_of()))
    if raw:
        raise ConfigError(f"settings file ({chosen}) has unknown entries: {', '.join(raw)}")
    return settings


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"settings file ({path}) cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"settings file ({path}) is not TOML: {exc}") from exc
    return found


def _table(path: Path, command: str, table: Any, known: set[str]) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"settings file ({path}): [{command}] must be a table")
    found = {str(_PARAMETERS.get(key, key)): value for key, value in table.items()}
    if strange := found.keys() - known:
        raise ConfigError(
            f"settings file ({path}): [{command}] has no option {', '.join(sorted(strange))}"
        )
    return found
