"""A CSV of events, each once: a collector writes it beside the rows, before its cursor moves."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
from collections.abc import Sequence
from pathlib import Path

from coordinator.collect.csvfile import TAIL_BYTES, write_durably
from worker.model.errors import ConfigError, PtzmeshError
from worker.model.event import COLUMNS, Event

HEADER = (",".join(COLUMNS) + "\n").encode()


class EventFile:
    """The file; it is made when there is something to put into it."""

    def __init__(self, path: Path) -> None:
        """Take its path."""
        self.path = path

    def check(self) -> None:
        """
        Refuse at the beginning what could take no events, as the first may be days away.

        Raises:
            ConfigError: It cannot be written, or is no file of events.
        """
        folder = self.path.absolute().parent
        try:
            if not self.path.exists():
                next(folder.iterdir(), None)  # it is a folder, and there
                if not os.access(folder, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                return
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._check_head(fd)
            finally:
                os.close(fd)
        except OSError as exc:
            raise ConfigError(
                f"the file ({self.path}) cannot be written: {exc.strerror}; choose another --events"
            ) from exc

    def append(self, events: Sequence[tuple[str, Event]]) -> None:
        """
        Add the events that are not at its end already; they are on the disk when this returns.

        Raises:
            ConfigError: The file is no file of events, and is left as it is.
            PtzmeshError: It cannot be written.
        """
        if not events:
            return
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                # First: a collector holds the lock of its rows as long as it runs.
                self._check_head(fd)
                fcntl.flock(fd, fcntl.LOCK_EX)
                self._append(fd, [_line(*one) for one in events])
            finally:
                os.close(fd)
        except OSError as exc:
            raise PtzmeshError(
                f"the file ({self.path}) cannot be written: {exc.strerror}; Redis keeps its "
                "events: make room and go on"
            ) from exc

    def _check_head(self, fd: int) -> int:
        """Give the file's size."""
        head, size = os.pread(fd, len(HEADER), 0), os.fstat(fd).st_size
        if head != HEADER and (len(head) != size or not HEADER.startswith(head)):
            raise ConfigError(
                f"the file ({self.path}) is no file of events and is left as it is: choose another "
                "--events"
            )
        return size

    def _append(self, fd: int, lines: Sequence[bytes]) -> None:
        size = self._check_head(fd)
        at = max(0, size - TAIL_BYTES)
        tail = os.pread(fd, size - at, at)
        whole = tail.rfind(b"\n") + 1  # behind it is what a crash left of a line
        os.ftruncate(fd, at + whole)
        known = set(tail[:whole].splitlines(keepends=True))
        new = [line for line in lines if line not in known]
        write_durably(fd, b"".join([b"" if at + whole else HEADER, *new]))


def _line(stream_id: str, event: Event) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(event.to_row(stream_id))
    return text.getvalue().encode()
