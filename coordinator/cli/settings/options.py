"""Options that several commands share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource

from worker.model.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])

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

        from coordinator.cli.faults.patience import waiting_for_redis
        from worker.wire.connection import server

        given = {name: kwargs.pop(f"redis_{name}") for name in _CREDENTIALS}
        kwargs["redis_url"] = url = _full_url(kwargs["redis_url"], given)
        try:
            with waiting_for_redis(server.safe_url(url)):
                return command(*args, **kwargs)
        except redis.RedisError as exc:
            raise server.unavailable(exc, url) from exc

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
