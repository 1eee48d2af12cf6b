"""Says what went wrong: one line on stderr, what is wrong and what to do, and an exit code."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from coordinator.cli.faults.surroundings import trouble
from coordinator.cli.settings.config import DEFAULT_CONFIG
from coordinator.cli.terminal.streams import complain
from worker.model.errors import PtzmeshError
from worker.model.text import printable


def explain(exc: Exception) -> int:
    """Say what went wrong in one line; return the exit code."""
    if isinstance(exc, click.UsageError):
        message = f"{_source(exc)}{exc.format_message().rstrip('.')}"
        then = " " if message.endswith("?") else "; "
        command = "ptzmesh" if exc.ctx is None else exc.ctx.command_path
        return _say(f"{message}{then}see: {command} --help", 2)
    if isinstance(exc, click.ClickException):
        return _say(exc.format_message(), 2)
    if isinstance(exc, PtzmeshError):
        return _say(str(exc), exc.exit_code)
    known: Any = trouble(exc, {}) or _redis_trouble(exc)
    if known is not None:
        return _say(str(known), known.exit_code)
    return _say(f"this is a bug in ptzmesh: {type(exc).__name__}: {exc}; say --debug for more", 1)


def _source(exc: click.UsageError) -> str:
    """Name where a value stands that nobody has typed: in a variable, or in the settings file."""
    param = exc.param if isinstance(exc, click.BadParameter) else None
    if param is None or exc.ctx is None or not param.name:
        return ""
    source = exc.ctx.get_parameter_source(param.name)
    if source is ParameterSource.ENVIRONMENT:
        return f"{param.envvar if isinstance(param.envvar, str) else 'a variable'}: "
    path = exc.ctx.find_root().params.get("config") or DEFAULT_CONFIG
    return f"settings file ({path}): " if source is ParameterSource.DEFAULT_MAP else ""


def _redis_trouble(exc: Exception) -> PtzmeshError | None:
    import redis

    from worker.wire.connection import server
    from worker.wire.room import StreamFull, no_room

    if isinstance(exc, StreamFull):
        return no_room(exc)
    # Only of commands without `redis_option`: these have a server of their own.
    own = "unix:///its own socket"
    return server.unavailable(exc, own) if isinstance(exc, redis.RedisError) else None


def _say(message: str, code: int) -> int:
    complain(f"error: {printable(' '.join(message.split()))}")
    return code
