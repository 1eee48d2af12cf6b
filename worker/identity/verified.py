"""
Which targets have said who they are, kept on the node's disk for a day: Redis pays nothing for it.

A file that is damaged, or cannot be written, costs a question more with each run, and nothing else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from worker.host.whole_file import write_whole

DAY_S = 24 * 3600.0
#: One entry a target: as many as a mesh has nodes, twice.
MOST_KEPT = 2000
MAX_FILE_BYTES = 1024 * 1024


def verified_path(outbox: Path) -> Path:
    """Return the file of the node whose outbox this is."""
    return outbox.with_suffix(".verified")


def read_verified(path: Path) -> dict[str, float]:
    """Read what was verified in the last day → when, in seconds of this node's clock."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return {}
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    now = time.time()
    if not isinstance(raw, dict):
        return {}
    # A clock that was set back makes a time of the future: nobody knows how old that is.
    return {
        key: float(at)
        for key, at in raw.items()
        if type(at) in (int, float) and now - DAY_S < at <= now
    }


def keep_verified(path: Path, keys: Iterable[str]) -> None:
    """Note what was verified just now."""
    known = read_verified(path) | dict.fromkeys(keys, time.time())
    newest = dict(sorted(known.items(), key=lambda entry: entry[1])[-MOST_KEPT:])
    with suppress(OSError):
        write_whole(path, lambda part: part.write_text(json.dumps(newest), encoding="utf-8"))
