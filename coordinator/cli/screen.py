"""The two consoles: results go to stdout, progress and warnings to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from typing import IO

from rich.console import Console

#: A pipe has no width: what a matrix of 20 nodes takes.
PIPE_WIDTH = 200


def out() -> Console:
    """Give the console for results."""
    return _console(sys.stdout)


def err() -> Console:
    """Give the console for progress and warnings."""
    return _console(sys.stderr)


def _console(stream: IO[str]) -> Console:
    plain = not stream.isatty() or bool(os.environ.get("NO_COLOR"))
    width = shutil.get_terminal_size().columns if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, no_color=plain, highlight=False, soft_wrap=False)
