"""
Earlier files of a collector, that were moved out of its way: which results they hold.

Named as logrotate(8) does: FILE.1, FILE-20261129, with `extension` also FILE.1.csv, the date in any
order and form, with .gz where compressed; but none that another collector writes.
"""

from __future__ import annotations

import gzip
import logging
import os
import re
import zlib
from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, cast

from coordinator.collect.csvfile import (
    COLUMNS,
    TAIL_BYTES,
    Holds,
    Identity,
    cells_of,
    identity,
    kind_of,
)
from coordinator.collect.groups import default_group
from worker.model.errors import ConfigError

logger = logging.getLogger(__name__)


#: FILE-1.csv is no turn of logrotate's, but may well be a file of its own.
_TURN = r"\.[0-9]{1,4}"
_DATE = (
    r"[-._](?:[0-9]{4}[-._]?[0-9]{2}[-._]?[0-9]{2}|[0-9]{2}[-._]?[0-9]{2}[-._]?[0-9]{4})[-._T0-9]*"
)
#: Of other programs than gzip, which we cannot read.
_COMPRESSED = (".bz2", ".xz", ".zst")


def rotated(path: Path, groups: Collection[str]) -> list[Path]:
    """Return the earlier files beside `path`, newest first, but for those of other `groups`."""
    stem, ending = re.escape(path.stem), re.escape(path.suffix)
    turn, packed = f"(?:{_TURN}|{_DATE})", "|".join(map(re.escape, (".gz", *_COMPRESSED)))
    name = re.compile(rf"(?:{stem}{ending}{turn}|{stem}{turn}{ending})(?:{packed})?")
    try:
        beside = [file for file in path.parent.iterdir() if name.fullmatch(file.name)]
        ours = (file for file in beside if default_group(file) not in groups and file.is_file())
        return sorted(ours, key=_changed, reverse=True)
    except OSError as exc:
        raise ConfigError(
            f"the folder ({path.parent}) cannot be read: {exc.strerror}; choose another --csv"
        ) from exc


def last_rows(path: Path, groups: Collection[str]) -> Iterator[tuple[str, Identity]]:
    """Yield the stream id and the identity of the last row of each earlier file."""
    for earlier in rotated(path, groups):
        whole = (line for line in _lines(earlier, at_end=True) if line.endswith(b"\n"))
        cells = cells_of(b"".join(deque(whole, maxlen=1)))
        if any(kind_of(cells, len(columns)) is Holds.STREAM for columns in COLUMNS.values()):
            yield cells[-1], identity(cells)


def identities(path: Path, groups: Collection[str]) -> Iterator[Identity]:
    """Yield the identity of every row of the earlier files."""
    for earlier in rotated(path, groups):
        lines = _lines(earlier)
        width = len(COLUMNS.get(next(lines, b""), ()))
        yield from (identity(cells) for cells in map(cells_of, lines) if len(cells) == width)


def _lines(path: Path, *, at_end: bool = False) -> Iterator[bytes]:
    """Yield the lines of an earlier file; what cannot be read of it is logged and passed over."""
    try:
        if path.suffix in _COMPRESSED:
            raise OSError("it is not gzip that has compressed it")
        is_packed = path.suffix == ".gz"
        with cast("IO[bytes]", gzip.open(path) if is_packed else path.open("rb")) as file:
            if at_end and not is_packed:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            yield from file
    except FileNotFoundError:  # it was removed just now
        return
    except (OSError, EOFError, zlib.error) as exc:
        logger.warning("%s cannot be read, rows of it may come again: %s", path, exc)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # it is being compressed
        return 0.0
