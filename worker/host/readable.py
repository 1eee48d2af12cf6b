"""Reads a small file that a person has named, whatever it turns out to be."""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path

#: For a program at the other end of a pipe to begin.
PIPE_WAIT_S = 5.0
#: Far above any settings, password or certificate; /dev/zero and some files have no end.
MAX_BYTES = 4 * 1024 * 1024


def read_file(path: Path, pipe_wait_s: float = PIPE_WAIT_S) -> bytes:
    """
    Read a file whole; a pipe, such as a shell's `<(…)`, must have a writer soon.

    Raises:
        OSError: It cannot be read, is a pipe to which nobody writes, or holds too much.
    """
    with open(path, "rb", opener=_opened_at_once) as file:
        fd = file.fileno()
        if stat.S_ISFIFO(os.fstat(fd).st_mode) and not select.select([fd], [], [], pipe_wait_s)[0]:
            raise OSError(errno.ETIMEDOUT, "it is a pipe to which nobody writes", str(path))
        os.set_blocking(fd, True)
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MAX_BYTES >> 20} MiB", str(path))
    return content


def _opened_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
