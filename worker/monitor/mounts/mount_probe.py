"""
How fast a mounted folder is: a small write, fsync, read and delete, then the rate of a larger file.

A program of its own (`python -I -S mount_probe.py FOLDER ...`), as a file system whose server has
gone holds a process in the kernel. Imports the standard library only, prints one JSON object, and
ends itself by SIGALRM. As root it works in a mount namespace of its own: its open file then does
not make the host's mount busy, even when it hangs.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

SMALL_BYTES = 4096
BLOCK_BYTES = 128 * 1024
#: A probe file older than this was left by a probe that was killed.
STALE_S = 600.0
#: linux/sched.h, linux/mount.h
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000


class Busy(Exception):  # noqa: N818 - reads as the state it is
    """Another probe of this node is at work in the folder."""


def probe(folder: str, name: str, bulk_bytes: int, max_s: float) -> dict[str, Any]:
    """
    Measure with a small file, then with one of `bulk_bytes`, for `max_s` at most each way.

    Returns:
        Milliseconds of each small operation; rates in 10^6 bit/s; the bytes that were moved.

    Raises:
        Busy: The file is there, and is not old.
    """
    path = os.path.join(folder, name)  # noqa: PTH118 - pathlib costs a fifth of the start-up
    return _small(path) | (_bulk(path, bulk_bytes, max_s) if bulk_bytes else {})


def _small(path: str) -> dict[str, Any]:
    data = os.urandom(SMALL_BYTES)
    result: dict[str, Any] = {"small_bytes": SMALL_BYTES}
    fd = _timed(result, "create_ms", lambda: _create(path))
    try:
        with _closing(fd):
            _timed(result, "write_ms", lambda: os.write(fd, data))
            _timed(result, "fsync_ms", lambda: os.fsync(fd))
        _timed(result, "read_ms", lambda: _read(path))
    finally:
        _timed(result, "delete_ms", lambda: os.unlink(path))  # noqa: PTH108 - as above
    return result


def _read(path: str) -> None:
    with _closing(_open_uncached(path)) as fd:
        os.read(fd, SMALL_BYTES)


def _bulk(path: str, size: int, max_s: float) -> dict[str, Any]:
    """Write, then read back what was written; random bytes, as ssh may compress others."""
    block = os.urandom(BLOCK_BYTES)
    fd = _create(path)
    try:
        begun, written = time.monotonic(), 0
        with _closing(fd):
            while written < size and time.monotonic() - begun < max_s:
                written += os.write(fd, block[: size - written])
            os.fsync(fd)
        write_s = time.monotonic() - begun
        fd = _open_uncached(path)
        begun, read = time.monotonic(), 0
        with _closing(fd):
            while time.monotonic() - begun < max_s and (data := os.read(fd, BLOCK_BYTES)):
                read += len(data)
        read_s = time.monotonic() - begun
    finally:
        os.unlink(path)  # noqa: PTH108 - as above
    return {
        "bytes_written": written,
        "write_mbps": written * 8 / 1e6 / write_s,
        "bytes_read": read,
        "read_mbps": read * 8 / 1e6 / read_s,
    }


def _create(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        if time.time() - os.stat(path).st_mtime < STALE_S:  # noqa: PTH116 - as above
            raise Busy(f"another probe uses {path}") from None
        os.unlink(path)  # noqa: PTH108 - as above
        return os.open(path, flags, 0o600)


def _open_uncached(path: str) -> int:
    """Open for reading; sshfs forgets a file's pages when it is opened, others are asked to."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return fd


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _timed(result: dict[str, Any], name: str, action: Callable[[], Any]) -> Any:
    begun = time.monotonic()
    returned = action()
    result[name] = (time.monotonic() - begun) * 1e3
    return returned


def leave_hosts_mounts() -> None:
    """Go on with a copy of the host's mounts, where this process may."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "unshare") and libc.unshare(CLONE_NEWNS) == 0:
        libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)


def main() -> None:
    """Print the numbers, or `outcome` and `error`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--name", default=".ptzmesh-probe")
    parser.add_argument("--bulk-bytes", type=int, default=0)
    parser.add_argument("--max-s", type=float, default=5.0)
    parser.add_argument("--deadline-s", type=float, default=30.0)
    parser.add_argument("--anywhere", action="store_true", help="not only on a mount point")
    args = parser.parse_args()
    # Its default action ends even a process that waits for a file system.
    signal.setitimer(signal.ITIMER_REAL, args.deadline_s)
    leave_hosts_mounts()
    try:
        result: dict[str, Any] = {"outcome": "unreachable", "error": "nothing is mounted there"}
        if args.anywhere or os.path.ismount(args.folder):
            result = probe(args.folder, args.name, args.bulk_bytes, args.max_s)
    except Busy as exc:
        result = {"outcome": "target_busy", "error": str(exc)}
    except OSError as exc:
        result = {"outcome": "unreachable", "error": str(exc)}
    print(json.dumps(result))  # noqa: T201 - this is a program, and its output is read


if __name__ == "__main__":
    main()
