"""The two consoles: results go to stdout, progress and warnings to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import IO, Any

from rich.console import Console
from rich.text import Text

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


def print_list(
    rows: Sequence[Mapping[str, str]], numbers: Collection[str] = (), styles: Sequence[str] = ()
) -> None:
    """
    Print rows that have the same names as a table, or as several where they are too wide for one.

    Args:
        rows: At least one.
        numbers: Columns of numbers.
        styles: One of rich's for each row, if any.
    """
    console = out(LIST_WIDTH)
    styled = list(zip(rows, styles or [""] * len(rows), strict=True))
    columns = [
        Column(name, [Text(row[name], style) for row, style in styled], is_number=name in numbers)
        for name in rows[0]
    ]
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
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and 0 < int(columns) <= LIST_WIDTH else pipe_width
