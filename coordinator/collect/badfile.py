"""
Where a collector sets aside stream entries that are no measurement: `<csv>.bad`, JSON Lines.

An entry of a newer version of ptzmesh looks like that too, so nothing of it is thrown away.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from coordinator.collect.csvfile import append_new
from coordinator.results.results import log_bad
from coordinator.results.stream import Entry, fields_of
from worker.model.errors import PtzmeshError, WireError


def set_aside(csv_path: Path, entries: Sequence[tuple[Entry, WireError]]) -> None:
    """
    Log entries, and put those that are not there yet into the file beside a CSV.

    Raises:
        PtzmeshError: The file cannot be written.
    """
    if not entries:
        return
    for (stream_id, _), why in entries:
        log_bad(stream_id.decode(), why)
    path = csv_path.with_name(csv_path.name + ".bad")
    try:
        with path.open("ab+", buffering=0) as file:
            append_new(file.fileno(), [_line(entry, why) for entry, why in entries])
    except OSError as exc:
        raise PtzmeshError(f"the file ({path}) cannot be written: {exc.strerror}") from exc


def _line(entry: Entry, why: WireError) -> bytes:
    # Latin-1 keeps every byte, so that the packed detail can be read back.
    text = {n.decode("latin-1"): value.decode("latin-1") for n, value in fields_of(entry).items()}
    record = {"stream_id": entry[0].decode(), "why": str(why), "fields": text}
    return json.dumps(record).encode() + b"\n"
