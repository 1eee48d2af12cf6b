"""
Earlier files of a collector, that were moved out of its way: which results they hold.

Named as logrotate(8) does: FILE.1, FILE-20261129, with `extension` also FILE.1.csv; the date in any
order of its parts, with hours or seconds behind it. Compressed, such a name ends in .gz. A file
that another collector writes is none, whatever its name.
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import os
import re
import zlib
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from coordinator.collect.csvfile import COLUMNS, TAIL_BYTES, Holds, Identity, identity, kind_of
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
    """Give the earlier files beside `path`, newest first, but for those of other `groups`."""
    stem, ending = re.escape(path.stem), re.escape(path.suffix)
    turn, packed = f"(?:{_TURN}|{_DATE})", "|".join(map(re.escape, (".gz", *_COMPRESSED)))
    name = re.compile(rf"(?:{stem}{ending}{turn}|{stem}{turn}{ending})(?:{packed})?")
    try:
        found = [one for one in path.parent.iterdir() if name.fullmatch(one.name)]
        found = [one for one in found if default_group(one) not in groups]
        return sorted(filter(Path.is_file, found), key=_changed, reverse=True)
    except OSError as exc:
        raise ConfigError(
            f"the folder ({path.parent}) cannot be read: {exc.strerror}; choose another --csv"
        ) from exc


def last_rows(path: Path, groups: Collection[str]) -> Iterator[tuple[str, Identity]]:
    """Yield the stream id and the identity of the last row of each earlier file."""
    for one in rotated(path, groups):
        with _readable(one) as file:
            if one.suffix != ".gz":
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            whole = (line for line in file if line.endswith(b"\n"))
            cells = _cells(b"".join(deque(whole, maxlen=1)))
            if any(kind_of(cells, len(columns)) is Holds.STREAM for columns in COLUMNS.values()):
                yield cells[-1], identity(cells)


def identities(path: Path, groups: Collection[str]) -> Iterator[Identity]:
    """Yield the identity of every row of the earlier files."""
    for one in rotated(path, groups):
        with _readable(one) as file:
            width = len(COLUMNS.get(file.readline(), ()))
            yield from (identity(cells) for cells in map(_cells, file) if len(cells) == width)


def _cells(line: bytes) -> list[str]:
    return next(csv.reader([line.decode(errors="replace")]), [])


@contextmanager
def _readable(path: Path) -> Iterator[IO[bytes]]:
    """Open an earlier file; what cannot be read of it is logged and passed over."""
    try:
        with _opened(path) as file:
            yield file
    except (OSError, EOFError, zlib.error, csv.Error) as exc:
        logger.warning("%s cannot be read, rows of it may come again: %s", path, exc)


def _opened(path: Path) -> IO[bytes]:
    """Open a file; one that cannot be opened, or was removed just now, is as good as empty."""
    try:
        if path.suffix in _COMPRESSED:
            raise OSError("it is not gzip that has compressed it")
        return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
    except FileNotFoundError:
        return io.BytesIO()
    except OSError as exc:
        logger.warning("%s cannot be read, rows of it may come again: %s", path, exc)
        return io.BytesIO()


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # it is being compressed
        return 0.0
