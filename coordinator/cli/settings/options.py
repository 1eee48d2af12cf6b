"""Options that several commands share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from worker.model.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]

DEFAULT_REDIS = "redis://127.0.0.1:6379/0"

#: Of `redis_option`, beside the URL: Credentials' field, which its option is named by → its help.
_CREDENTIALS = {
    "password_file": "File that holds its password.",
    "ca": "PEM file of the authority that signed its certificate.",
    "cert": "PEM file of our own certificate for it.",
    "key": "PEM file of the key of our certificate.",
}
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


def with_options(command: Callable[..., Any], options: Sequence[Decorator[Any]]) -> Any:
    """Add options to a command, so that its help shows them in this order."""
    return functools.reduce(lambda made, option: option(made), reversed(options), command)


def redis_option(command: Command) -> Command:
    """
    Take the Redis of the mesh; the command gets one `redis_url`, with password and TLS files in it.

    What the settings file says of the password and of TLS goes with the URL in that file, and is
    never sent to a Redis that the caller named.
    """

    @functools.wraps(command)
    def resolved(*args: Any, **kwargs: Any) -> Any:
        import redis

        from coordinator.cli.faults.patience import waiting_for_redis
        from worker.wire.connection import server

        given = {name: kwargs.pop(f"redis_{name}") for name in _CREDENTIALS}
        kwargs["redis_url"] = url = _full_url(kwargs["redis_url"], given)
        try:
            with waiting_for_redis(server.safe_url(url)):
                return command(*args, **kwargs)
        except redis.RedisError as exc:
            raise server.unavailable(exc, url) from exc

    url_option = click.option(
        "--redis",
        "redis_url",
        envvar=["PTZMESH_REDIS_URL", "REDIS_URL"],
        default=DEFAULT_REDIS,
        show_default=True,
        metavar="URL",
        help="Redis of the mesh.",
    )
    files = [
        click.option(
            f"--redis-{name.replace('_', '-')}",
            envvar=f"PTZMESH_REDIS_{name.upper()}",
            metavar="FILE",
            help=help_text,
        )
        for name, help_text in _CREDENTIALS.items()
    ]
    with_url: Command = with_options(resolved, [url_option, *files])
    return with_url


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


def family_options(by: str) -> Decorator[Any]:
    """Add -4 and -6 to a command, as one argument `family`: 4, 6, or None without either."""

    def decorate(command: Callable[..., Any]) -> Any:
        @functools.wraps(command)
        def with_family(ipv4: bool, ipv6: bool, **others: Any) -> Any:
            if ipv4 and ipv6:
                raise click.UsageError("-4 and -6 exclude each other")
            return command(family=4 if ipv4 else 6 if ipv6 else None, **others)

        digits = [
            click.option(f"-{n}", f"--ipv{n}", is_flag=True, help=f"{by} an IPv{n} address.")
            for n in (4, 6)
        ]
        return with_options(with_family, digits)

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


def parsed_by(parse: Callable[[Any], object]) -> Callable[..., object]:
    """Return an option's callback that changes its value."""
    return lambda _ctx, _param, value: parse(value)


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


names_option = functools.partial(click.option, multiple=True, callback=names, metavar="NAMES")
label_option = functools.partial(
    click.option, "--label", "labels", multiple=True, callback=labels, metavar="KEY=VALUE"
)


def file_option(flag: str, parameter: str, *, instead: str = "", **more: Any) -> Decorator[Any]:
    """Take a file; `-` is refused where `instead` says what prints to standard output."""

    def checked(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
        if instead and str(value) == "-":
            raise click.BadParameter(
                f"'-' is standard output, and a file is needed here; {instead}"
            )
        return value

    return click.option(flag, parameter, type=FILE, metavar="FILE", callback=checked, **more)
