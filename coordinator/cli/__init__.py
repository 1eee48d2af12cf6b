"""
The command line: the only place that prints, and where worker and coordinator are put together.

Exit codes: 0 done, 1 our bug, 2 usage or settings, 3 Redis unreachable, 4 the run ended with pairs
missing or failed, 130 Ctrl-C.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

import click

from coordinator.cli.options import read_config
from worker import __version__
from worker.errors import PtzmeshError

#: Command → the module of its group that has it, so that each command imports what it needs.
COMMANDS = {
    "demo": "demo",
    "worker": "node",
    "nodes": "node",
    "run": "run",
    "runs": "runs",
    "show": "runs",
    "cancel": "runs",
    "results": "results",
    "collect": "results",
    "verify": "results",
    "test": "test",
    "lockers": "lockers",
    "limits": "limits",
    "doctor": "doctor",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Give the commands in the order of a first visit."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Import a command; None when there is none of that name."""
        return load(name) if name in COMMANDS else None


def load(name: str) -> click.Command:
    """Import a command of `COMMANDS`; each option gets the variable that its flag promises."""
    command: click.Command = getattr(import_module(f"coordinator.cli.{COMMANDS[name]}"), name)
    for option in command.params:
        if isinstance(option, click.Option) and option.envvar is None:
            option.envvar = variable(name, option)
    return command


def variable(command: str, option: click.Option) -> str:
    """Give the environment variable of a command's option, such as PTZMESH_RUN_DRY_RUN."""
    return f"PTZMESH_{command}_{entry(option)}".upper()


def entry(option: click.Option) -> str:
    """Give what an option is called in the settings file: its flag, dashes as underscores."""
    return max(option.opts, key=len).lstrip("-").replace("-", "_")


def parameters(name: str) -> dict[str, str]:
    """Give a command's parameters by what the settings file calls them."""
    options = [one for one in load(name).params if isinstance(one, click.Option)]
    return {entry(one): str(one.name) for one in options}


EPILOG = """\b
Examples:
  ptzmesh demo                                       a mesh on this machine, nothing to set up
  ptzmesh worker --name cam-2 --redis redis://hub    make this machine a node
  ptzmesh run --csv network_metrics.csv              measure every node against every other
"""


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ptzmesh")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="TOML file of settings, one table a command [default: /etc/ptzmesh.toml where it is].",
)
@click.pass_context
def cli(ctx: click.Context, debug: bool, config: str | None) -> None:
    """Measure the network between nodes that share a Redis."""
    ctx.obj = {"debug": debug}
    ctx.default_map = read_config(config, {name: partial(parameters, name) for name in COMMANDS})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every failure is one line on stderr and an exit code."""
    debug = "--debug" in (sys.argv if arguments is None else arguments)
    try:
        code = cli.main(arguments, standalone_mode=False, auto_envvar_prefix="PTZMESH")
    except (KeyboardInterrupt, click.Abort):
        code = 130
    except SystemExit as exc:
        # click's answer to a reader of our output that has gone, as in `| head`: no failure.
        is_pipe = isinstance(exc.__context__, BrokenPipeError)
        code = 0 if is_pipe else exc.code
    except Exception as exc:
        if debug:
            traceback.print_exc()
        code = _explain(exc)
    sys.exit(code if isinstance(code, int) else 0)


def _explain(exc: Exception) -> int:
    """Say what went wrong in one line; give the exit code."""
    if isinstance(exc, click.UsageError) and exc.ctx is not None:
        hint = f"see: {exc.ctx.command_path} --help"
        return _say(f"{exc.format_message().rstrip('.')}; {hint}", 2)
    if isinstance(exc, click.ClickException):
        return _say(exc.format_message(), 2)
    if isinstance(exc, PtzmeshError):
        return _say(str(exc), exc.exit_code)
    known: Any = _redis_trouble(exc)
    if known is not None:
        return _say(str(known), known.exit_code)
    return _say(f"this is a bug in ptzmesh: {type(exc).__name__}: {exc}; say --debug for more", 1)


def _redis_trouble(exc: Exception) -> PtzmeshError | None:
    import redis

    from worker import wire
    from worker.limits import StreamFull, no_room

    if isinstance(exc, StreamFull):
        return no_room(exc)
    # Only of commands without `redis_option`: these have a server of their own.
    own = "its own socket"
    return wire.unavailable(exc, own) if isinstance(exc, redis.RedisError) else None


def _say(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 - the one place
    return code
