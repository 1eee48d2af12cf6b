"""
Earlier files of a collector, that were moved out of its way: which results they hold.

Named as logrotate(8) does: FILE.1, FILE-20261129, with `extension` also FILE-20261129.csv;
compressed, such a name ends in .gz.
"""

from __future__ import annotations

import csv
import gzip
import logging
import os
import re
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from coordinator.csvfile import COLUMNS, TAIL_BYTES, Holds, Identity, identity, kind_of
from worker.errors import ConfigError

logger = logging.getLogger(__name__)


def rotated(path: Path) -> list[Path]:
    """Give the earlier files beside `path`, newest first."""
    stem, ending = re.escape(path.stem), re.escape(path.suffix)
    number = r"[.-][0-9]{1,14}"
    name = re.compile(rf"(?:{stem}{ending}{number}|{stem}{number}{ending})(?:\.gz)?")
    try:
        found = [one for one in path.parent.iterdir() if name.fullmatch(one.name)]
        return sorted(filter(Path.is_file, found), key=_changed, reverse=True)
    except OSError as exc:
        raise ConfigError(
            f"the folder ({path.parent}) cannot be read: {exc.strerror}; choose another --csv"
        ) from exc


def last_rows(path: Path) -> Iterator[tuple[str, Identity]]:
    """Yield the stream id and the identity of the last row of each earlier file."""
    for one in rotated(path):
        with _readable(one) as file:
            if one.suffix != ".gz":
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            whole = (line for line in file if line.endswith(b"\n"))
            cells = _cells(b"".join(deque(whole, maxlen=1)))
            if any(kind_of(cells, len(columns)) is Holds.STREAM for columns in COLUMNS.values()):
                yield cells[-1], identity(cells)


def identities(path: Path) -> Iterator[Identity]:
    """Yield the identity of every row of the earlier files."""
    for one in rotated(path):
        with _readable(one) as file:
            width = len(COLUMNS.get(file.readline(), ()))
            yield from (identity(cells) for cells in map(_cells, file) if len(cells) == width)


def _cells(line: bytes) -> list[str]:
    return next(csv.reader([line.decode(errors="replace")]), [])


@contextmanager
def _readable(path: Path) -> Iterator[IO[bytes]]:
    """Open an earlier file; what cannot be read of it is told and passed over."""
    try:
        with path.open("rb") as file:
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if path.suffix == ".gz" else file
    except (OSError, EOFError, zlib.error, csv.Error) as exc:
        logger.warning("%s cannot be read, rows of it may come again: %s", path, exc)


def _changed(path: Path) -> float:
    return path.stat().st_mtime
