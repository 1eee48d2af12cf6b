"""
Writes one run's rows to a file, each pair exactly once, and leaves nothing behind in Redis.

The file is its own cursor: what it has of the run is read when the run is taken up, the stream is
read from the run's beginning, and only what is new is added. So a killed command is repeated with
the same run, and several runs may be in one file, whose rows have no `stream_id` (see `csvfile`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import redis

from coordinator.collect.csvfile import CsvFile, Holds, rows_of
from coordinator.results.stream import last_id
from coordinator.runs.follow import Update, follow_run
from coordinator.runs.holds import Hold
from coordinator.runs.runs import beginning, read_run, repeat_command
from worker.model.errors import PtzmeshError, RunIncomplete
from worker.model.measurement import Measurement
from worker.model.names import RunId
from worker.model.record.csv_line import csv_lines
from worker.wire.run_record import Run


class OneShot(contextlib.AbstractContextManager["OneShot"]):
    """A file that takes rows of whole runs, locked until it is closed; `rows` were written."""

    def __init__(self, connection: redis.Redis, path: Path) -> None:
        """Open or make the file as `CsvFile` does, and hold the stream from now on."""
        self.connection, self.path = connection, path
        self.rows = 0
        self._run = ""
        self._have: set[int] = set()
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(CsvFile(path, Holds.RUNS))
            self._hold = stack.enter_context(Hold(connection))
            self._hold.move(last_id(connection))
            self._open = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        """Let go of the stream and of the file."""
        self._open.close()

    def take_up(self, run: Run) -> None:
        """Hold the stream from the run's beginning, and read what the file has of it."""
        self._hold.move(beginning(run))
        self._run = run.id
        # 64 bits a pair: a mesh of 1,000 nodes has 999,000 of them a probe.
        self._have = {hash(row.pair) for row in rows_of(self.path, run.id)}

    def follow(self, run_id: RunId, begun: Run | None = None) -> Iterator[Update]:
        """Follow a run to its end as `follow_run` does; yield what arrives once the file has it."""
        run = begun or read_run(self.connection, run_id)
        self.take_up(run)
        for update in follow_run(self.connection, run_id, run):
            self.add(update)
            yield update

    def add(self, update: Update) -> None:
        """
        Write what has arrived and is not there yet; it is on the disk when this returns.

        Raises:
            PtzmeshError: The file cannot be written, or was moved, removed or changed meanwhile.
        """
        new: list[Measurement] = []
        for result in update.arrived:
            pair = hash((result.run, result.probe, result.source, result.target))
            if pair not in self._have:
                self._have.add(pair)
                new.append(result)
        # What goes into a file that is removed is lost.
        is_there = self._file.is_in_place()
        if is_there:
            self._file.append([csv_lines([result.to_row("")]) for result in new])
        if not is_there or not self._file.is_kept():
            raise PtzmeshError(
                f"the file ({self.path}) was moved or changed while it was written; all rows of "
                f"the run in one: {repeat_command(self._run, self.path)}"
            )
        self.rows += len(new)
        self._hold.keep(update.position)

    def check_whole(self, run: Run) -> None:
        """
        Say what the file has not got of a run that has ended.

        Raises:
            RunIncomplete: Results were trimmed before they were read, or cannot be read.
        """
        missing = run.expected - len(self._have)
        if missing > 0:
            raise RunIncomplete(
                f"{missing} of {run.expected} results of run {run.id} are missing in {self.path}: "
                "they are no longer in the stream, or cannot be read here (a warning says so); "
                "where a collector has them, see its file"
            )
