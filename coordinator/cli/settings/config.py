"""The settings file: how it is read, and what differs between two states of it."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from worker.host.readable import read_file
from worker.model.errors import ConfigError

#: Entries at the top of the settings file, for all commands → the parameter.
FOR_ALL = {"redis": "redis_url"} | {
    name: name for name in ("redis_password_file", "redis_ca", "redis_cert", "redis_key")
}

#: Where a context's `meta` has the arguments of the command, and which settings file was read.
ARGUMENTS, CONFIG_MARK = "ptzmesh.arguments", "ptzmesh.config_mark"
DEFAULT_CONFIG = Path("/etc/ptzmesh.toml")


class ConfigMark(NamedTuple):
    """
    What differs between two states of a settings file.

    `changed_ns` also changes with its rights, and where a copy keeps the time of its original.
    """

    device: int
    inode: int
    size: int
    written_ns: int
    changed_ns: int


def mark_of_config(path: str | None) -> ConfigMark | None:
    """Look at the settings file; None without a file."""
    try:
        now = (Path(path) if path else DEFAULT_CONFIG).stat()
    except OSError:
        return None
    if not stat.S_ISREG(now.st_mode):
        return None  # a pipe, which can be read once
    return ConfigMark(now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)


class Entry(NamedTuple):
    """What an entry of the settings file is: which parameter, and whether it takes several."""

    parameter: str
    is_list: bool


def read_config(
    path: str | None, parameters_of: Mapping[str, Callable[[], Mapping[str, Entry]]]
) -> dict[str, Any]:
    """
    Read the settings file: a table a command, an entry an option, dashes as underscores.

    Flags and PTZMESH_* variables win over it. `redis` and what begins with `redis_` at the top is
    for all commands.

    Args:
        path: The file; None is `DEFAULT_CONFIG`, where it is.
        parameters_of: Returns, by command, the entries that its table may have → their parameters.

    Raises:
        ConfigError: It cannot be read, is no TOML, or has an entry that nothing reads.
    """
    chosen = Path(path) if path else DEFAULT_CONFIG
    if not path and not chosen.exists():
        return {}
    raw = _read_toml(chosen)
    common = {name: raw.pop(name) for name in FOR_ALL if name in raw}
    known = {name: Entry(parameter, is_list=False) for name, parameter in FOR_ALL.items()}
    for_all = _values(chosen, "", common, known)
    settings: dict[str, Any] = {}
    for command, entries_of in parameters_of.items():
        table = raw.pop(command, None)
        own = {} if table is None else _table(chosen, command, table, entries_of())
        # Another Redis does not get the password that is for all.
        settings[command] = own if "redis_url" in own else for_all | own
    if raw:
        raise ConfigError(f"settings file ({chosen}) has unknown entries: {', '.join(raw)}")
    return settings


def _read_toml(path: Path) -> dict[str, Any]:
    # Most machines have no settings file, and every command would wait for the parser.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        settings: dict[str, Any] = tomllib.loads(read_file(path).decode())
        return settings
    except OSError as exc:
        raise ConfigError(
            f"settings file ({path}) cannot be read: {exc.strerror}; say another --config"
        ) from exc
    except (ValueError, RecursionError) as exc:  # also of a number of thousands of digits
        raise ConfigError(f"settings file ({path}) is not TOML: {exc}") from exc


def _table(path: Path, command: str, table: Any, known: Mapping[str, Entry]) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"settings file ({path}): [{command}] must be a table")
    if strange := table.keys() - known.keys():
        raise ConfigError(
            f"settings file ({path}): [{command}] has no option {', '.join(sorted(strange))}"
        )
    return _values(path, f"[{command}] ", table, known)


def _values(
    path: Path, where: str, table: Mapping[str, Any], known: Mapping[str, Entry]
) -> dict[str, Any]:
    for name, value in table.items():
        form = f'a list: {name} = ["…"]' if known[name].is_list else f'one value: {name} = "…"'
        if isinstance(value, list) is not known[name].is_list or isinstance(value, dict):
            raise ConfigError(f"settings file ({path}): {where}{name} must be {form}")
    return {known[name].parameter: value for name, value in table.items()}
