"""The group of all commands: each is imported when it is called."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from coordinator.cli import INTERRUPTED, begin_command
from coordinator.cli.faults.explain import explain
from coordinator.cli.faults.surroundings import trouble
from coordinator.cli.settings.config import (
    ARGUMENTS,
    CONFIG_MARK,
    FOR_ALL,
    Entry,
    mark_of_config,
    read_config,
)
from coordinator.cli.terminal.streams import finish, prepare
from worker import __version__
from worker.model.errors import PtzmeshError

#: In the order of a first visit → what each is for, as its own help begins, so that the help of all
#: imports none. Each is in the module of its name, and imports what it needs.
COMMANDS = {
    "demo": "Start a Redis and four workers here, measure their mesh, leave a CSV and a picture.",
    "worker": "Make this machine a node of the mesh, until SIGTERM or Ctrl-C.",
    "nodes": "List the registered nodes.",
    "run": "Measure nodes against each other and show the matrix as it fills.",
    "runs": "List the newest runs.",
    "show": "Show the matrix of a run, `last` by default.",
    "cancel": "End a run now; pairs that are not measured say so.",
    "results": "Print the results that are in the stream, oldest first.",
    "collect": "Drain the results to one CSV, each exactly once, whatever is killed when.",
    "verify": "Prove that a file and a run's plan agree: each pair has exactly one row.",
    "events": "List what changed at the nodes: address, tools, rights, labels, limits, version.",
    "test": "Test the way to TARGET for a while; leave a picture and a JSON file.",
    "lockers": "Show who holds which locker, since when and for how long still.",
    "limits": "Show or set what the mesh may use of the Redis that it shares.",
    "doctor": (
        "Look for what is wrong with Redis, this machine and the mesh, and say how to fix it."
    ),
}
HELP = ["-h", "--help"]
#: What people type first of other programs → what does it here.
INSTEAD = {"help": "--help", "version": "--version"}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the commands in the order of a first visit."""
        return list(COMMANDS)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a line a command, without importing it."""
        room = formatter.width - 6 - max(map(len, COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, click.Command(name, help=line).get_short_help_str(room))
                    for name, line in COMMANDS.items()
                ]
            )

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Import a command, ready to be called; None where none has that name."""
        return _callable(load(name)) if name in COMMANDS else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take nothing at all for a question: the help, and the code of a wrong usage."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; where there is none, name those that are called much the same."""
        name = str(args[0])
        ctx.meta[ARGUMENTS] = tuple(args[1:])
        if name in COMMANDS or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches  # no command that is spelled right needs it

        alike = [INSTEAD[name]] if name in INSTEAD else get_close_matches(name.lower(), COMMANDS)
        ask = f"; did you mean {' or '.join(alike)}?" if alike else ""
        raise click.UsageError(f"there is no command {name[:80]!r}{ask}", ctx)


def _callable(command: click.Command) -> click.Command:
    """Return a command that also knows --version, and hears Ctrl-C when its imports are done."""
    ready = copy(command)
    ready.params = list(command.params)
    click.version_option(__version__, prog_name="ptzmesh", hidden=True)(ready)
    begin: Any = command.callback

    @wraps(begin)
    def callback(*args: Any, **kwargs: Any) -> Any:
        import redis  # noqa: F401 - every command needs both

        begin_command()
        try:
            return begin(*args, **kwargs)
        except (OSError, RuntimeError, MemoryError) as exc:
            finish()  # raises what is wrong when it was standard output
            fault = trouble(exc, _paths_given(command, kwargs))
            if fault is None:
                raise
            raise fault from exc

    ready.callback = callback
    return ready


def _paths_given(command: click.Command, values: Mapping[str, Any]) -> dict[str, Path]:
    """Return the flags that name a file → the file."""
    return {
        max(param.opts, key=len): Path(path)
        for param in command.params
        if isinstance(param.type, click.Path)
        and isinstance(path := values.get(str(param.name)), (str, Path))
    }


def load(name: str) -> click.Command:
    """
    Import a command of `COMMANDS`, as its help shows it: the Redis options last.

    Each option gets the variable that its flag promises.
    """
    command: click.Command = getattr(import_module(f"coordinator.cli.{name}"), name)
    command.context_settings.setdefault("help_option_names", HELP)  # without a parent, too
    # A command's own options are what its help is read for.
    command.params.sort(key=lambda param: param.name in FOR_ALL.values())
    for option in command.params:
        if isinstance(option, click.Option) and option.envvar is None:
            option.envvar = variable(name, option)
    return command


def variable(command: str, option: click.Option) -> str:
    """Return the environment variable of a command's option, such as PTZMESH_RUN_DRY_RUN."""
    return f"PTZMESH_{command}_{entry(option)}".upper()


def entry(option: click.Option) -> str:
    """Return what an option is called in the settings file: its flag, dashes as underscores."""
    return max(option.opts, key=len).lstrip("-").replace("-", "_")


def parameters(name: str) -> dict[str, Entry]:
    """Return a command's parameters by what the settings file calls them."""
    options = [param for param in load(name).params if isinstance(param, click.Option)]
    return {
        entry(option): Entry(str(option.name), option.multiple or option.nargs != 1)
        for option in options
    }


EPILOG = """\b
Examples:
  ptzmesh demo                                       a mesh on this machine, nothing to set up
  ptzmesh worker --name cam-2 --redis redis://hub    make this machine a node
  ptzmesh run --csv mesh.csv                        measure every node against every other
"""


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": HELP})
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
    ctx.meta[CONFIG_MARK] = mark_of_config(config)  # before, so that no change is missed
    ctx.default_map = read_config(config, {name: partial(parameters, name) for name in COMMANDS})


def run(arguments: Sequence[str] | None) -> int:
    """Run a command, by default sys.argv's; return the exit code. Each failure is one line."""
    debug = "--debug" in (sys.argv if arguments is None else arguments)
    prepare()
    stdout = sys.stdout
    try:
        code = cli.main(
            arguments, prog_name="ptzmesh", standalone_mode=False, auto_envvar_prefix="PTZMESH"
        )
    except (KeyboardInterrupt, click.Abort):
        code = INTERRUPTED
    except SystemExit as exc:
        # A reader of our output that has gone, as in `| head`, is no failure; click mutes stdout.
        code = 0 if sys.stdout is not stdout else exc.code
    except Exception as exc:
        if debug:
            with suppress(OSError):
                traceback.print_exc()
        code = explain(_of_stdout() or exc)
    unwritten = _of_stdout()
    if not code and unwritten is not None and not isinstance(unwritten, BrokenPipeError):
        return explain(unwritten)
    return code if isinstance(code, int) else 0


def _of_stdout() -> Exception | None:
    """Return what keeps standard output from being written, such as a full disk."""
    try:
        finish()
    except (OSError, PtzmeshError) as exc:
        return exc
    return None
