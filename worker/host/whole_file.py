"""Writes a file whole, or leaves what is there."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """
    Write a file whole or not at all.

    Raises:
        OSError: The latter; also where something is that is no file, such as a pipe.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    path = path.resolve()  # what a link leads to is written, not the link
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
