"""
Appends whole lines to a CSV that others may append to as well.

A file that PTZJEPA's own module began has the first five of our columns; it keeps to these and to
their form, and only gets the records that fit there. Our rows have no `stream_id`. A file that a
collector holds is left to it, as the collector's cursor is the file's last line.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import io
import os
import time
from collections.abc import Sequence
from pathlib import Path

from worker.model.csv_columns import CSV_COLUMNS, WIRE_1_CSV_COLUMNS
from worker.model.fields import Cell
from worker.model.measurement import Measurement
from worker.monitor.records.record import NETWORK_PROBES

PTZJEPA_COLUMNS = CSV_COLUMNS[:5]
PTZJEPA_TIME = "%Y-%m-%d %H:%M:%S"
#: Another process of this node holds the file for one write.
LOCK_DEADLINE_S = 1.0
LOCK_PAUSE_S = 0.02
#: Such file systems have no locks (SSHFS, some NFS): a line is one write, which has to do.
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
#: More than our header.
HEAD_BYTES = 4096


def append(path: Path, measurements: Sequence[Measurement]) -> int:
    """
    Write one line a record and wait until the disk has them; makes the folder and the file.

    Returns:
        How many lines were written: fewer than given when the file has PTZJEPA's five columns.

    Raises:
        OSError: It cannot be written, is held, or its columns are not ours; it is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(fd, path)
        head = os.pread(fd, HEAD_BYTES, 0)
        columns = _columns(head, path)
        wanted = [m for m in measurements if len(columns) > 5 or m.probe in NETWORK_PROBES]
        if wanted or not head:
            _write(fd, _lines(fd, head, columns, wanted))
        return len(wanted)
    finally:
        os.close(fd)


def _lock(fd: int, path: Path) -> None:
    give_up_at = time.monotonic() + LOCK_DEADLINE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            if time.monotonic() > give_up_at:
                text = "another process, such as a collector, holds the file"
                raise OSError(errno.EBUSY, text, str(path)) from exc
            time.sleep(LOCK_PAUSE_S)
        except OSError as exc:
            if exc.errno in NO_LOCKS:
                return
            raise
        else:
            return


def _columns(head: bytes, path: Path) -> Sequence[str]:
    """Read which columns the file has; an empty one gets ours."""
    first = head.split(b"\n", 1)[0].rstrip(b"\r").decode(errors="replace")
    for columns in (CSV_COLUMNS, WIRE_1_CSV_COLUMNS, PTZJEPA_COLUMNS):
        if not first or first == ",".join(columns):
            return columns
    text = "its columns are neither ours nor PTZJEPA's; name another file, or move it away"
    raise OSError(errno.EINVAL, text, str(path))


def _lines(
    fd: int, head: bytes, columns: Sequence[str], measurements: Sequence[Measurement]
) -> bytes:
    # Python's own csv, which PTZJEPA uses, ends lines with CRLF: a file keeps its kind.
    ending = "\r\n" if b"\r\n" in head else "\n"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=ending)
    if not head:
        writer.writerow(columns)
    elif os.pread(fd, 1, os.fstat(fd).st_size - 1) != b"\n":
        text.write(ending)  # a crash left half a line: it stays, but takes none of ours with it
    writer.writerows(_row(measurement, columns) for measurement in measurements)
    return text.getvalue().encode()


def _row(measurement: Measurement, columns: Sequence[str]) -> list[Cell]:
    cells = dict(zip(CSV_COLUMNS, measurement.to_row(""), strict=True))
    if columns is PTZJEPA_COLUMNS:  # as its module writes them: local time, the host as named
        cells["timestamp"] = measurement.started_at.astimezone().strftime(PTZJEPA_TIME)
        cells["host"] = measurement.target
    return [cells[name] for name in columns]


def _write(fd: int, data: bytes) -> None:
    """Write all or nothing."""
    size = os.fstat(fd).st_size
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, size)
        raise
