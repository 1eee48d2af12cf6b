"""
A CSV of results: one writer, whole lines only, on the disk before anybody hears of it.

The last column of a collector's file is the id of the stream entry, so the file itself says how far
it is. A file of whole runs has nothing there: neither takes the other's rows, as a collector would
pass over what it has not got. No cell holds a line break (`worker.model.measurement`). Needs a file
system with locks (flock): SSHFS and some NFS mounts have none, or none that other machines see.
"""

from __future__ import annotations

import contextlib
import csv
import enum
import errno
import fcntl
import logging
import os
import re
import shlex
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from coordinator.results.stream import START, stream_position
from worker.model.csv_columns import CSV_COLUMNS, WIRE_1_CSV_COLUMNS
from worker.model.errors import ConfigError, PtzmeshError
from worker.model.record.csv_line import csv_lines

logger = logging.getLogger(__name__)


HEADER = csv_lines([CSV_COLUMNS]).encode()
#: What a file of ours may begin with: one that an older ptzmesh began keeps its columns.
COLUMNS = {csv_lines([each]).encode(): each for each in (CSV_COLUMNS, WIRE_1_CSV_COLUMNS)}
#: More than one write of the collector, so all that a crash may have left undone is in it.
TAIL_BYTES = 8 * 1024 * 1024
#: Rows that a compressor did not read came after its end, and it removes the file just then.
COMPRESS_S = 0.5
#: Which file is asked for, where one is read.
COLLECTED = "--csv names the file that the run was collected into"
STREAM_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
#: What `coordinator.runs.runs` names a run; what records itself has other names.
RUN_ID = re.compile(r"[0-9]{8}T[0-9]{9}-[0-9a-f]{4}")
_STREAM_IDS = re.compile(rb",([0-9]{1,20}-[0-9]{1,20})$", re.MULTILINE)


class Holds(enum.Enum):
    """What a file is for."""

    STREAM = enum.auto()
    RUNS = enum.auto()


class Identity(NamedTuple):
    """What tells a measurement from every other one, whatever its stream id."""

    run: str
    probe: str
    source: str
    target: str
    started_at: str

    @property
    def pair(self) -> tuple[str, ...]:
        """What all rows of its pair in its run have in common."""
        return self[:4]


_IDENTITY = [
    CSV_COLUMNS.index(name) for name in ("run_id", "probe", "source", "target", "timestamp")
]


class CsvFile(contextlib.AbstractContextManager["CsvFile"]):
    """
    An open and locked CSV.

    Attributes:
        cursor: Stream id of the last row, `START` when there is none.
        last: Identity of the last row, None when there is none.
        highest: Highest stream id near the end; above the cursor only after Redis went back.
        columns: Its columns: `CSV_COLUMNS`, or those of the ptzmesh that began it.
    """

    def __init__(self, path: Path, holds: Holds = Holds.STREAM) -> None:
        """
        Open or make the file, lock it, and cut what a crash left of a last line.

        Raises:
            ConfigError: It cannot be opened, another process writes it, or it is no file of ours;
                such a file is left as it is.
        """
        self.path, self.holds = path, holds
        self.cursor: str = START
        self.highest = (0, 0)
        self.columns: Sequence[str] = CSV_COLUMNS
        self.last: Identity | None = None
        with contextlib.ExitStack() as stack:
            self._fd = _open_locked(path)
            stack.callback(os.close, self._fd)
            self._size = os.fstat(self._fd).st_size
            self._begin()
            stack.pop_all()

    def __exit__(self, *_: object) -> None:
        """Close it, which drops the lock."""
        os.close(self._fd)

    def append(self, lines: Sequence[str]) -> None:
        """
        Write lines of `CSV_COLUMNS`, all or none, and return when they are on the disk.

        What the file has no column for is left out.

        Raises:
            PtzmeshError: The disk is full or failing; the file ends with the last good line.
        """
        if not lines:
            return
        text = "".join(lines)
        if self.columns != CSV_COLUMNS:
            indices = [CSV_COLUMNS.index(name) for name in self.columns]
            text = csv_lines([row[index] for index in indices] for row in csv.reader(lines))
        self._write(text.encode())
        cells = cells_of(lines[-1].encode())
        self.cursor, self.last = cells[-1], identity(cells)

    def is_in_place(self) -> bool:
        """Return whether the path still names this file, as long as we left it."""
        try:
            named = self.path.stat()
        except OSError:
            return False
        held = os.fstat(self._fd)
        return os.path.samestat(named, held) and held.st_size == self._size

    def is_kept(self) -> bool:
        """Return whether what was just written stays: what logrotate compresses, it removes."""
        if not self.is_in_place():
            time.sleep(COMPRESS_S)
        return os.fstat(self._fd).st_nlink > 0

    def _begin(self) -> None:
        line, newline, _ = os.pread(self._fd, max(map(len, COLUMNS)), 0).partition(b"\n")
        head = line + newline
        self._header = head if head in COLUMNS else HEADER
        self.columns = COLUMNS[self._header]
        if head not in COLUMNS:
            if len(head) != self._size or not any(one.startswith(head) for one in COLUMNS):
                raise ConfigError(
                    f"the file ({self.path}) does not begin with our columns and is left as it "
                    "is: choose another --csv"
                )
            self._cut(0)
            self._write(HEADER)
            _sync_folder(self.path)
        self._cut_torn()
        # A collector that was killed may have left its last rows in the page cache only.
        os.fsync(self._fd)

    def _cut_torn(self) -> None:
        tail = _tail(self._fd, self._size)
        # After a power cut some file systems show zeros where a write had not reached the disk.
        hole = tail.find(b"\0")
        end = tail.rfind(b"\n", 0, hole if hole >= 0 else len(tail)) + 1
        if end == 0:
            raise ConfigError(
                f"the file ({self.path}) does not end with rows of ours: choose another --csv"
            )
        torn = len(tail) - end
        if self._size - torn > len(self._header):
            self._read_cursor(tail[:end])  # it may turn out to be no file of ours
        if torn:
            logger.warning("%s: a torn last line (%d bytes) is cut", self.path, torn)
            self._cut(self._size - torn)

    def _read_cursor(self, rows: bytes) -> None:
        cells = cells_of(rows[:-1].rpartition(b"\n")[2])
        found = kind_of(cells, len(self.columns))
        if found is None:
            raise ConfigError(
                f"the last line of {self.path} is not a row of ours and is left as it is: "
                "repair it, or choose another --csv"
            )
        if found is not self.holds:
            raise ConfigError(_other_kind(self.path, found))
        if found is Holds.RUNS:
            return
        self.cursor, self.last = cells[-1], identity(cells)
        self.highest = max(map(stream_position, _STREAM_IDS.findall(rows)))

    def _write(self, data: bytes) -> None:
        try:
            _write_durably(self._fd, data)
        except OSError as exc:
            with contextlib.suppress(OSError):
                self._cut(self._size)
            if not self._size:
                raise ConfigError(
                    f"the file ({self.path}) cannot be written: {exc.strerror}; make room, or "
                    "choose another --csv"
                ) from exc
            raise PtzmeshError(
                f"the file ({self.path}) cannot be written: {exc.strerror}; it ends with its last "
                "good row, and Redis keeps the rest: make room and go on"
            ) from exc
        self._size += len(data)
        self._repair_truncated(data)

    def _repair_truncated(self, data: bytes) -> None:
        """Put the header before rows that went into a file that was truncated just before."""
        if self._size > len(data) == os.fstat(self._fd).st_size:
            self._cut(0)
            self.columns = CSV_COLUMNS
            self._write(HEADER + data)

    def _cut(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self._size = size


def kind_of(cells: Sequence[str], width: int) -> Holds | None:
    """Return what the file of a row holds, by its `width` columns; None if the row is neither's."""
    if len(cells) != width:
        return None
    if STREAM_ID.fullmatch(cells[-1]):
        return Holds.STREAM
    is_run = RUN_ID.fullmatch(identity(cells).run)
    return Holds.RUNS if is_run and not cells[-1] else None


def _other_kind(path: Path, found: Holds) -> str:
    name = shlex.quote(str(path))
    if found is Holds.RUNS:
        return (
            f"the file ({path}) holds whole runs and is left as it is: choose another --csv, "
            f"or add a run to it: ptzmesh run --csv {name}, ptzmesh results --run ID --csv {name}"
        )
    return (
        f"the file ({path}) is a collector's and is left as it is: choose another --csv, or add "
        f"all results to it: ptzmesh collect --csv {name}"
    )


def append_new(fd: int, lines: Iterable[bytes], header: bytes = b"") -> None:
    """
    Cut what a crash left of a last line, and add those lines that the end of a file has not.

    Raises:
        OSError: Some of them may have been written.
    """
    size = os.fstat(fd).st_size
    tail = _tail(fd, size)
    there = tail[: tail.rfind(b"\n") + 1]
    size += len(there) - len(tail)
    os.ftruncate(fd, size)
    known = set(there.splitlines(keepends=True))
    new = (line for line in lines if line not in known)
    _write_durably(fd, b"".join([b"" if size else header, *new]))


def _tail(fd: int, size: int) -> bytes:
    return os.pread(fd, min(size, TAIL_BYTES), max(0, size - TAIL_BYTES))


def _write_durably(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.fsync(fd)


def _open_locked(path: Path) -> int:
    """Open and lock; once more when the file was replaced between the two."""
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise ConfigError(
                f"the file ({path}) cannot be opened: {exc.strerror}; choose another --csv"
            ) from exc
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, fd)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError(f"the path ({path}) must be a regular file: choose another --csv")
            _lock(fd, path)
            with contextlib.suppress(OSError):
                if os.path.samestat(path.stat(), os.fstat(fd)):
                    stack.pop_all()
                    return fd


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise ConfigError(
                f"another process collects into {path}: wait for it or stop it, or choose "
                "another --csv"
            ) from exc
        raise ConfigError(
            f"the file system of {path} has no locks ({exc.strerror}), so nothing would stop a "
            "second writer: choose a --csv on a local disk"
        ) from exc


def _sync_folder(path: Path) -> None:
    """Make a new file's name survive a power cut, where the file system lets us."""
    folder = os.open(path.resolve().parent, os.O_RDONLY | os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        os.fsync(folder)
    os.close(folder)


def cells_of(line: bytes) -> list[str]:
    """Return the cells of a line; none where it cannot be one of a CSV."""
    try:
        return next(csv.reader([line.decode(errors="replace")]), [])
    except csv.Error:
        return []


def identity(cells: Sequence[str]) -> Identity:
    """Return the identity of a row; its columns stand first in every version."""
    return Identity(*(cells[index] for index in _IDENTITY))


def rows_of(path: Path, run: str | None = None) -> Iterator[Identity]:
    """
    Yield what each whole row of any such file is of, or those of a run, also while it is written.

    Raises:
        ConfigError: It cannot be read, is no file of ours, or has a line that is not a row.
    """
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            columns = COLUMNS.get(file.readline().encode())
            if columns is None:
                raise ConfigError(f"the file ({path}) does not begin with our columns: {COLLECTED}")
            # Most lines of other runs need not be parsed.
            lines = (line for line in file if line.endswith("\n") and (run or "") in line)
            for cells in csv.reader(lines):
                if len(cells) != len(columns):
                    raise ValueError(f"{len(cells)} cells, not {len(columns)}")
                row = identity(cells)
                if run in (None, row.run):
                    yield row
    except OSError as exc:
        raise ConfigError(f"the file ({path}) cannot be read: {exc.strerror}; {COLLECTED}") from exc
    except (ValueError, csv.Error) as exc:
        raise ConfigError(
            f"the file ({path}) has a line that is not a row: {exc}; "
            "repair it, or choose another --csv"
        ) from exc
