"""Options that several commands share, and the settings file."""

from __future__ import annotations

import functools
import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import click
from click.core import ParameterSource

from worker.host.readable import read_file
from worker.model.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Command = TypeVar("Command", bound=Callable[..., Any])

#: Entries at the top of the settings file, for all commands → the parameter.
FOR_ALL = {
    "redis": "redis_url",
    "redis_password_file": "redis_password_file",
    "redis_ca": "redis_ca",
    "redis_cert": "redis_cert",
    "redis_key": "redis_key",
}

#: Where a context's `meta` has the arguments of the command, and which settings file was read.
ARGUMENTS, CONFIG_MARK = "ptzmesh.arguments", "ptzmesh.config_mark"
DEFAULT_CONFIG = Path("/etc/ptzmesh.toml")
DEFAULT_REDIS = "redis://127.0.0.1:6379/0"

#: Of `redis_option`, beside the URL: Credentials' field → option, what it is.
_CREDENTIALS = {
    "password_file": ("--redis-password-file", "File that holds its password."),
    "ca": ("--redis-ca", "PEM file of the authority that signed its certificate."),
    "cert": ("--redis-cert", "PEM file of our own certificate for it."),
    "key": ("--redis-key", "PEM file of the key of our certificate."),
}


def redis_option(command: Command) -> Command:
    """
    Take the Redis of the mesh; the command gets one `redis_url`, with password and TLS files in it.

    What the settings file says of the password and of TLS goes with the URL in that file, and is
    never sent to a Redis that the caller named.
    """

    @functools.wraps(command)
    def resolved(*args: Any, **kwargs: Any) -> Any:
        import redis

        from coordinator.cli.patience import waiting_for_redis
        from worker.wire.connection import server

        given = {name: kwargs.pop(f"redis_{name}") for name in _CREDENTIALS}
        kwargs["redis_url"] = url = _full_url(kwargs["redis_url"], given)
        try:
            with waiting_for_redis(server.safe_url(url)):
                return command(*args, **kwargs)
        except redis.RedisError as exc:
            raise server.unavailable(exc, server.safe_url(url)) from exc

    decorated: Any = resolved
    for name, (option, what) in reversed(_CREDENTIALS.items()):
        variable = f"PTZMESH_REDIS_{name.upper()}"
        decorated = click.option(
            option, f"redis_{name}", envvar=variable, metavar="FILE", help=what
        )(decorated)
    decorated = click.option(
        "--redis",
        "redis_url",
        envvar=["PTZMESH_REDIS_URL", "REDIS_URL"],
        default=DEFAULT_REDIS,
        show_default=True,
        metavar="URL",
        help="Redis of the mesh.",
    )(decorated)
    return cast("Command", decorated)


def _full_url(url: str, given: Mapping[str, str | None]) -> str:
    from worker.wire.connection import redis_url

    context = click.get_current_context()

    def is_in_file(parameter: str) -> bool:
        return context.get_parameter_source(parameter) is ParameterSource.DEFAULT_MAP

    password = os.environ.get(redis_url.PASSWORD_VARIABLE) or None
    kept = {
        name: value
        for name, value in given.items()
        if is_in_file("redis_url") or not is_in_file(f"redis_{name}")
    }
    if password and is_in_file("redis_password_file"):
        kept.pop("password_file", None)
    return redis_url.with_credentials(url, redis_url.Credentials(password=password, **kept))


def family_options(by: str) -> Callable[[Command], Command]:
    """Give a command -4 and -6, as one argument `family`: 4, 6, or None where neither is said."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_family(ipv4: bool, ipv6: bool, **others: Any) -> Any:
            if ipv4 and ipv6:
                raise click.UsageError("-4 and -6 exclude each other")
            return command(family=4 if ipv4 else 6 if ipv6 else None, **others)

        decorated: Any = with_family
        for digit in (6, 4):
            decorated = click.option(
                f"-{digit}", f"--ipv{digit}", is_flag=True, help=f"{by} an IPv{digit} address."
            )(decorated)
        return cast("Command", decorated)

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


def names(_ctx: click.Context, _param: click.Parameter, value: Iterable[str]) -> tuple[str, ...]:
    """Take node names, given several times or with commas between."""
    from worker.model.names import valid_name

    split = [name.strip() for text in value for name in text.split(",")]
    return tuple(valid_name(name) for name in split)


def labels(_ctx: click.Context, _param: click.Parameter, value: Iterable[str]) -> dict[str, str]:
    """Take labels as key=value."""
    from worker.model.names import NAME

    pairs = [text.partition("=") for text in value]
    for key, sign, content in pairs:
        if not sign or not NAME.fullmatch(key) or len(content) > 128:
            raise ConfigError(
                f"label ({f'{key}{sign}{content}'[:80]!r}) must be written as key=value: a key of "
                "letters and digits as a node's name has, a value of at most 128 characters"
            )
    return {key: content for key, _, content in pairs}


class ConfigMark(NamedTuple):
    """
    What tells one state of a settings file from another.

    `changed_ns` also changes with its rights, and where a copy keeps the time of its original.
    """

    device: int
    inode: int
    size: int
    written_ns: int
    changed_ns: int


def mark_of_config(path: str | None) -> ConfigMark | None:
    """Look at the settings file; None where there is none."""
    try:
        found = (Path(path) if path else DEFAULT_CONFIG).stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None  # a pipe, which can be read once
    return ConfigMark(
        found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    )


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
        parameters_of: Gives, by command, the entries that its table may have → their parameters.

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
    try:
        found: dict[str, Any] = tomllib.loads(read_file(path).decode())
    except OSError as exc:
        raise ConfigError(
            f"settings file ({path}) cannot be read: {exc.strerror}; say another --config"
        ) from exc
    except (ValueError, RecursionError) as exc:  # also of a number of thousands of digits
        raise ConfigError(f"settings file ({path}) is not TOML: {exc}") from exc
    return found


def _table(path: Path, command: str, table: Any, known: Mapping[str, Entry]) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"settings file ({path}): [{command}] must be a table")
    if strange := table.keys() - known.keys():
        raise ConfigError(
            f"settings file ({path}): [{command}] has no option {', '.join(sorted(strange))}"
        )
    return _values(path, f"[{command}] ", table, known)


def _values(
    path: Path, place: str, table: Mapping[str, Any], known: Mapping[str, Entry]
) -> dict[str, Any]:
    for name, value in table.items():
        form = f'a list: {name} = ["…"]' if known[name].is_list else f'one value: {name} = "…"'
        if isinstance(value, list) is not known[name].is_list or isinstance(value, dict):
            raise ConfigError(f"settings file ({path}): {place}{name} must be {form}")
    return {known[name].parameter: value for name, value in table.items()}
