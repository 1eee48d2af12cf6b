"""
A node's files: the one by which it holds its name on this machine, with the token of that name.

Results that wait for Redis lie beside it (`worker.publish.outbox`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from worker.model.errors import ConfigError
from worker.publish.outbox import RESEND_S, left_in

#: How long of each heartbeat another worker may hold the file of a name, to send its results.
SENDING_S = RESEND_S + 2


def owner_path(folder: Path, name: str) -> Path:
    """Return the file by which a node holds its name."""
    return folder / f"{name}.owner"


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Let what goes wrong in the state folder name the option that chooses another."""
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            raise  # no folder is at fault
        raise ConfigError(
            f"state folder ({folder}) cannot be written: {exc.strerror}; say another --state-dir"
        ) from exc


def hold(folder: Path, name: str) -> IO[str]:
    """
    Hold the node's file for as long as it is open: one process a name on this machine.

    Raises:
        ConfigError: Another process holds it, or the folder cannot be written.
    """
    with usable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = owner_path(folder, name).open("a+")
    # A worker of another name may be sending what this one has left.
    until = time.monotonic() + (SENDING_S if name in left_in(folder) else 0)
    while not (is_held := lock(file)) and time.monotonic() < until:
        time.sleep(0.2)
    if not is_held:
        raise ConfigError(
            f"node name ({name}) is in use by another worker on this machine; "
            "choose another --name, or another --state-dir if it is of another mesh"
        )
    return file


def lock(file: IO[str]) -> bool:
    """Take a node's file; False when a process has it that lives."""
    try:
        # lockf, not flock: children do not inherit it, so an orphan cannot keep the name.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def owner_token(file: IO[str]) -> str:
    """Return the name's token, kept on disk so that a restart after kill -9 is not refused."""
    file.seek(0)
    token = file.read().strip()
    if not token:
        token = secrets.token_hex(16)
        file.write(token)
        file.flush()
        os.fsync(file.fileno())
    return token
