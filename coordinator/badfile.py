"""
Where a collector sets aside stream entries that are no measurement: `<csv>.bad`, JSON Lines.

An entry of a newer version of ptzmesh looks like that too, so nothing of it is thrown away.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from coordinator.csvfile import write_durably
from coordinator.results import START, Entry, log_bad
from coordinator.runs import stream_position
from worker.errors import PtzmeshError, WireError

logger = logging.getLogger(__name__)


class BadFile:
    """The file beside the CSV; it is made when there is something to put into it."""

    def __init__(self, csv_path: Path) -> None:
        """Take the path of the CSV."""
        self.path = csv_path.with_name(csv_path.name + ".bad")

    def append(self, entries: Sequence[tuple[Entry, WireError]]) -> None:
        """
        Set entries aside, those that are not in the file yet, and say so.

        Raises:
            PtzmeshError: The file cannot be written.
        """
        if not entries:
            return
        try:
            self._append(entries)
        except OSError as exc:
            raise PtzmeshError(f"the file ({self.path}) cannot be written: {exc.strerror}") from exc

    def _append(self, entries: Sequence[tuple[Entry, WireError]]) -> None:
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            done = stream_position(self._last_id())
            for (stream_id, fields), why in entries:
                if stream_position(stream_id) <= done:
                    continue
                log_bad(stream_id.decode(), fields, why)
                # Latin-1 keeps every byte: the packed detail can be read back from it.
                text = {k.decode("latin-1"): v.decode("latin-1") for k, v in fields.items()}
                record = {"stream_id": stream_id.decode(), "why": str(why), "fields": text}
                write_durably(fd, json.dumps(record).encode() + b"\n")
        finally:
            os.close(fd)
