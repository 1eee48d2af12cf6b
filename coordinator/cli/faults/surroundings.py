"""
Tells a fault of what surrounds us (disk, folders, limits) from a bug of ours.

What a command cannot foresee arrives here: only kinds that no program can be at fault for, and
files that the person has named. Everything else stays a bug.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from worker.model.errors import ConfigError

#: No program is to blame for these, whichever file it is.
OUTSIDE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE,
    errno.ENODEV, errno.ENXIO, errno.ETXTBSY, errno.EFBIG,
}  # fmt: skip
#: Of a file that an option names, these are as well.
NAMED = OUTSIDE | {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL,
    errno.ENOTSUP, errno.EEXIST, errno.ESPIPE,
}  # fmt: skip


def trouble(exc: BaseException, options: Mapping[str, Path]) -> ConfigError | None:
    """
    Return the line for a fault of the surroundings; None for what is a bug.

    Args:
        options: Flag → path that was given with it.
    """
    number = exc.errno if isinstance(exc, OSError) else None
    if isinstance(exc, MemoryError) or number == errno.ENOMEM:
        return ConfigError("there is no memory left: end other programs, or raise the limit of it")
    if isinstance(exc, BlockingIOError) or "start new thread" in str(exc):
        return ConfigError(
            "no more processes or threads may be started: raise the limit, as with ulimit -u, "
            "TasksMax= of a unit or --pids-limit of a container"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return ConfigError(
            "no more files may be opened: raise the limit, as with ulimit -n 1024 or LimitNOFILE= "
            "of a unit"
        )
    return _of_file(exc, options) if isinstance(exc, OSError) else None


def _of_file(exc: OSError, options: Mapping[str, Path]) -> ConfigError | None:
    if "No usable temporary directory" in str(exc):
        return ConfigError(
            "no folder for temporary files can be written: let TMPDIR name one that can"
        )
    if exc.filename is None:
        return _without_name(exc)
    path = Path(os.fsdecode(exc.filename))
    flag = next((flag for flag, given in options.items() if _is_of(path, given)), None)
    if exc.errno not in (NAMED if flag else OUTSIDE):
        return None
    remedy = f"say another {flag}" if flag else "give this user the right and the room"
    return ConfigError(f"{path} cannot be used: {exc.strerror}; {remedy}")


def _without_name(exc: OSError) -> ConfigError | None:
    if exc.errno == errno.ENOENT and _is_nowhere():
        return ConfigError("the current folder is gone: cd to one that is there")
    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        # Unbuffered (PYTHONUNBUFFERED), standard output has nothing left that would show it.
        return ConfigError(
            f"standard output or a file cannot be written: {exc.strerror}; make room (df -h), or "
            "send the output elsewhere"
        )
    return None


def _is_of(path: Path, given: Path) -> bool:
    """Whether a file is the one that was given, in it, above it, or beside it as its part."""
    return path == given or given in path.parents or path in given.parents or (
        path.parent == given.parent and given.name in path.name
    )  # fmt: skip


def _is_nowhere() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False
