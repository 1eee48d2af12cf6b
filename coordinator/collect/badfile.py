"""
Where a collector sets aside stream entries that are no measurement: `<csv>.bad`, JSON Lines.

An entry of a newer version of ptzmesh looks like that too, so nothing of it is thrown away.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from coordinator.collect.csvfile import TAIL_BYTES, write_durably
from coordinator.results.results import log_bad
from coordinator.results.stream import Entry
from worker.model.errors import PtzmeshError, WireError


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
            there = _ids_after_cutting_torn(fd)
            lines = []
            for (stream_id, fields), why in entries:
                if stream_id not in there:
                    log_bad(stream_id.decode(), fields, why)
                    lines.append(_line(stream_id, fields, why))
            write_durably(fd, b"".join(lines))
        finally:
            os.close(fd)


def _ids_after_cutting_torn(fd: int) -> set[bytes]:
    """Cut what a crash left of a last line; give the ids that the end of the file has."""
    size = os.fstat(fd).st_size
    at = max(0, size - TAIL_BYTES)
    tail = os.pread(fd, size - at, at)
    os.ftruncate(fd, at + tail.rfind(b"\n") + 1)
    return set(_STREAM_ID.findall(tail))


def _line(stream_id: bytes, fields: Mapping[bytes, bytes], why: WireError) -> bytes:
    # Latin-1 keeps every byte, so that the packed detail can be read back.
    text = {name.decode("latin-1"): value.decode("latin-1") for name, value in fields.items()}
    record = {"stream_id": stream_id.decode(), "why": str(why), "fields": text}
    return json.dumps(record).encode() + b"\n"


_STREAM_ID = re.compile(rb'^\{"stream_id": "([0-9]+-[0-9]+)"', re.MULTILINE)
