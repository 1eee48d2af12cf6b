"""A CSV of events, each once: a collector writes it beside the rows, before its cursor moves."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from coordinator.collect.csvfile import append_new
from worker.model.errors import ConfigError, PtzmeshError
from worker.model.record.csv_line import csv_lines
from worker.wire.event import COLUMNS, Event

HEADER = csv_lines([COLUMNS]).encode()


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
            if self.path.exists():
                with self.path.open("rb+", buffering=0) as file:
                    self._check_head(file.fileno())
                return
            next(folder.iterdir(), None)  # it is a folder, and there
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
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
            with self.path.open("ab+", buffering=0) as file:
                # First: a collector holds the lock of its rows as long as it runs.
                self._check_head(file.fileno())
                fcntl.flock(file, fcntl.LOCK_EX)
                self._check_head(file.fileno())
                lines = [csv_lines([one.to_row(i)]).encode() for i, one in events]
                append_new(file.fileno(), lines, HEADER)
        except OSError as exc:
            raise PtzmeshError(
                f"the file ({self.path}) cannot be written: {exc.strerror}; Redis keeps its "
                "events: make room and go on"
            ) from exc

    def _check_head(self, fd: int) -> None:
        head, size = os.pread(fd, len(HEADER), 0), os.fstat(fd).st_size
        if head != HEADER and (len(head) != size or not HEADER.startswith(head)):
            raise ConfigError(
                f"the file ({self.path}) is no file of events and is left as it is: choose another "
                "--events"
            )
