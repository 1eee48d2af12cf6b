"""The two consoles: results go to stdout, progress and warnings to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

#: A pipe has no width: what a matrix of 20 nodes takes.
PIPE_WIDTH = 200
#: Of a list in a pipe: a reader wants whole lines.
LIST_WIDTH = 10_000


def out(pipe_width: int = PIPE_WIDTH) -> Console:
    """Return the console for results; a pipe that names no width has this one."""
    return _console(sys.stdout, pipe_width)


def err() -> Console:
    """Return the console for progress and warnings."""
    return _console(sys.stderr)


def print_list(
    rows: Sequence[Mapping[str, str]], numbers: Collection[str] = (), styles: Sequence[str] = ()
) -> None:
    """Print `columns_of` these as a table, or as several where they are too wide for one."""
    from coordinator.cli.terminal.tables import columns_of, tables_that_fit

    console = out(LIST_WIDTH)
    tables = tables_that_fit(columns_of(rows, numbers, styles), console.width)
    for place, table in enumerate(tables):
        if place:
            console.print()
        console.print(table)


def recording(nowhere: IO[str], width: int) -> Console:
    """Return a console that keeps what is printed, for a picture."""
    return _plain(file=nowhere, width=width, record=True, force_terminal=True)


def _console(stream: IO[str], pipe_width: int = PIPE_WIDTH) -> Console:
    plain = not stream.isatty() or bool(os.environ.get("NO_COLOR"))
    return _plain(file=stream, width=_width(stream, pipe_width), no_color=plain)


def _plain(**options: Any) -> Console:
    # Not before anything is printed: `ptzmesh run` starts its run first.
    from rich.console import Console

    # What is printed comes from Redis, files and tools: nothing of it is markup, or an emoji.
    return Console(**options, highlight=False, markup=False, emoji=False, soft_wrap=False)


def _width(stream: IO[str], pipe_width: int) -> int:
    if stream.isatty():
        return shutil.get_terminal_size().columns
    # watch(1) shows what it reads from a pipe on a terminal, whose width it names so.
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and 0 < int(columns) <= LIST_WIDTH else pipe_width
