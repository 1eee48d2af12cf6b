"""The two consoles: results go to stdout, progress and warnings to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import IO, Any

from rich.console import Console

from coordinator.cli.terminal.tables import Column, tables_that_fit

#: A pipe has no width: what a matrix of 20 nodes takes.
PIPE_WIDTH = 200
#: Of a list in a pipe: whoever reads it there wants whole lines.
LIST_WIDTH = 10_000


def out(pipe_width: int = PIPE_WIDTH) -> Console:
    """Give the console for results; a pipe that tells no width has this one."""
    return _console(sys.stdout, pipe_width)


def err() -> Console:
    """Give the console for progress and warnings."""
    return _console(sys.stderr)


def print_list(columns: Sequence[Column]) -> None:
    """Print a table with all of its columns: below each other where they are too wide together."""
    console = out(LIST_WIDTH)
    for place, table in enumerate(tables_that_fit(columns, console.width)):
        if place:
            console.print()
        console.print(table)


def recording(nowhere: IO[str], width: int) -> Console:
    """Give a console that keeps what is printed, for a picture."""
    return _plain(file=nowhere, width=width, record=True, force_terminal=True)


def _console(stream: IO[str], pipe_width: int = PIPE_WIDTH) -> Console:
    plain = not stream.isatty() or bool(os.environ.get("NO_COLOR"))
    return _plain(file=stream, width=_width(stream, pipe_width), no_color=plain)


def _plain(**options: Any) -> Console:
    # What is printed comes from Redis, files and tools: nothing of it is markup, or an emoji.
    return Console(**options, highlight=False, markup=False, emoji=False, soft_wrap=False)


def _width(stream: IO[str], pipe_width: int) -> int:
    if stream.isatty():
        return shutil.get_terminal_size().columns
    # watch(1) shows what it reads from a pipe on a terminal, whose width it tells so.
    told = os.environ.get("COLUMNS", "")
    return int(told) if told.isdecimal() and 0 < int(told) <= LIST_WIDTH else pipe_width
