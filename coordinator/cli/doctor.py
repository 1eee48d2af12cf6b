"""`ptzmesh doctor`: what is wrong, and the command that fixes it."""

from __future__ import annotations

import socket
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coordinator.cli.settings.options import FOLDER, json_option, redis_option
from coordinator.cli.terminal.output import print_json
from worker.model.text import printable

if TYPE_CHECKING:
    from coordinator.checks.check import Check

#: Width of the mark and of the name of a check, which all lines have.
MARK, NAME = 10, 13
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}


@click.command(
    epilog="""\b
Examples:
  ptzmesh doctor                            Redis, this machine, the mesh
  ptzmesh doctor --between cam-1 hub        do these two reach each other?
  ptzmesh doctor --quick --name cam-1       is that node alive? for a health check
  ptzmesh doctor --json | jq -r 'select(.status == "fail") | .fix'
\b
Exit codes: 0 nothing failed (warnings may be there), 2 a check of Redis' settings
or of this machine failed, 3 Redis cannot be used, 4 a check of the mesh failed.
"""
)
@redis_option
@click.option(
    "--name",
    envvar=["PTZMESH_WORKER_NAME", "PTZMESH_NODE"],
    help="The node that this machine is, or will be [default: the worker's].",
)
@click.option(
    "--state-dir",
    type=FOLDER,
    envvar="PTZMESH_WORKER_STATE_DIR",
    help="Folder of that node [default: the worker's].",
)
@click.option(
    "--between",
    nargs=2,
    metavar="NODE NODE",
    help="Only whether these two reach each other: ping, ports, iperf3, both ways.",
)
@click.option("--quick", is_flag=True, help="Only this node's heartbeat, in one line and 2 s.")
@json_option
def doctor(
    redis_url: str,
    name: str | None,
    state_dir: Path | None,
    between: tuple[str, str] | None,
    quick: bool,
    as_json: bool,
) -> None:
    """
    Look for what is wrong with Redis, this machine and the mesh, and say how to fix it.

    Nothing is changed. Checks of a node are skipped where none runs, unless --name names one. Exit
    codes are below.
    """
    from coordinator.checks.check import exit_code
    from coordinator.checks.health import own_health
    from worker.model import names

    if between and quick:
        raise click.UsageError("--between and --quick exclude each other")
    given = name or _of_worker("name")
    own_name = names.own_name(str(given or socket.gethostname()))
    checks: Iterable[Check]
    if quick:
        checks = [own_health(redis_url, own_name)]
    elif between:
        checks = _between(redis_url, between)
    else:
        checks = _all(redis_url, own_name, given is not None, state_dir)
    click.get_current_context().exit(exit_code(_shown(checks, as_json, is_brief=quick)))


def _of_worker(name: str) -> Any:
    """Return what the settings file says of `ptzmesh worker`: here it is the same node."""
    parent = click.get_current_context().parent
    tables: Any = (parent.default_map if parent else None) or {}
    return tables.get("worker", {}).get(name)


def _all(redis_url: str, name: str, asked: bool, state_dir: Path | None) -> Iterator[Check]:
    from coordinator.checks.diagnosis import Subject, diagnose
    from coordinator.cli.worker import default_state_dir
    from worker import __version__

    folder = state_dir or _of_worker("state_dir") or default_state_dir()
    subject = Subject(
        redis_url=redis_url, name=name, asked=asked, state_dir=Path(folder), version=__version__
    )
    return diagnose(subject)


def _between(redis_url: str, nodes: tuple[str, str]) -> Iterator[Check]:
    from coordinator.checks.network.between import between
    from coordinator.mesh import Mesh

    return between(Mesh(redis_url).connection, *nodes, by=f"doctor@{socket.gethostname()}")


def _shown(checks: Iterable[Check], as_json: bool, *, is_brief: bool = False) -> list[Check]:
    """Print each check as it comes; then how many of each there were."""
    seen = []
    for check in checks:
        seen.append(check)
        if as_json:
            print_json("check", check.to_json())
        elif is_brief:
            click.echo(f"{check.status.value}: {printable(check.message)}")
        else:
            _print(check, is_first=len(seen) == 1 or check.area is not seen[-2].area)
    if not as_json and not is_brief:
        counts = Counter(check.status.value for check in seen)
        listed = ", ".join(f"{counts[status]} {status}" for status in STYLES if counts[status])
        click.echo(f"\n{listed}")
    return seen


def _print(check: Check, *, is_first: bool) -> None:
    from rich.text import Text

    from coordinator.cli.terminal.screen import out

    console = out()
    status = check.status.value
    if is_first:
        console.print(Text(check.area.value, "bold"))
    name = f"{check.name:<{NAME}} " if len(check.name) <= NAME else f"{check.name}: "
    room = min(console.width, 120) - MARK
    lines = _wrapped(printable(name + check.message), room)
    console.print(Text(f"  {status:<{MARK - 2}}", STYLES[status]) + Text(lines[0]))
    for line in lines[1:]:
        console.print(Text(" " * MARK + line))
    if check.fix:
        # In one piece, however long: it is to be copied.
        console.print(Text(" " * MARK + "-> " + printable(check.fix)), soft_wrap=True)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=" " * (NAME + 1), break_long_words=False,
        break_on_hyphens=False,
    ) or [""]  # fmt: skip
