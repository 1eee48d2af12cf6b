"""
Drains the stream of results to one CSV, each result exactly once.

The file says how far it is. A batch is read, written, fsynced, and only then is the consumer group
set to it (XGROUP SETID): what the group has passed is on the disk and may be trimmed. Nothing is
ever pending: XRANGE costs Redis half of XREADGROUP, and leaves no second bookkeeping that a crash
could put in contradiction to the file. What Redis raises passes through.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import redis

from coordinator.collect.badfile import set_aside
from coordinator.collect.csvfile import CsvFile
from coordinator.collect.cursor import Cursor
from coordinator.collect.eventfile import EventFile
from coordinator.collect.groups import default_group, valid_group
from coordinator.results.stream import (
    MAX_PAGE,
    Entry,
    Pages,
    Patience,
    fields_of,
    stream_position,
    wait_for_more,
)
from worker.model.errors import WireError
from worker.model.measurement import csv_row
from worker.model.record.csv_line import csv_lines, usual_lines
from worker.wire.connection.away import AWAY
from worker.wire.event import Event, is_event

logger = logging.getLogger(__name__)

#: One fsync takes as long as writing some hundred rows; the lines of this many are held in 1 MB.
COMMIT_ROWS = 4000
#: Following, results trickle in: this gathers them to at most ten fsyncs a second.
LINGER_S = 0.1
#: Where another program keeps changing the file, it is not opened again and again without end.
REOPEN_S = 0.5


class Collector:
    """
    Collects into one file; whatever ends it, it can be started again and goes on.

    Attributes:
        group: Name of the file's consumer group. One group a file: two files of one group would
            each let Redis trim what the other has not got.
        rows: Written by this collector.
        bad: Entries that are no measurement; they are in `<file>.bad`, one JSON object a line.
    """

    def __init__(
        self,
        connection: redis.Redis,
        path: Path,
        *,
        group: str | None = None,
        on_commit: Callable[[int], None] | None = None,
        from_start: bool = False,
        events: Path | None = None,
    ) -> None:
        """
        Prepare; nothing is opened yet.

        Args:
            connection: To a Redis.
            path: The CSV.
            group: None makes it of this host's name and the path; see `valid_group`.
            on_commit: Called with the number of rows that were just written.
            from_start: Write what the stream still has of earlier files again.
            events: A CSV that gets the events; None passes over them.
        """
        self.connection, self.path = connection, path
        self.group = default_group(path) if group is None else valid_group(group)
        self.on_commit = on_commit
        self.from_start = from_start
        self.event_file = None if events is None else EventFile(events)
        self.rows = self.bad = 0

    def drain(self) -> None:
        """Collect until the end of the stream; raises what `CsvFile` does."""
        self._check_events()
        self.connection.ping()  # no file is made for a Redis that is not there
        while True:
            with CsvFile(self.path) as file, closing(Pages(self.connection)) as pages:
                cursor = self._begin(file)
                while self._commit(cursor, pages):
                    if pages.at_end:
                        return
            self._say_moved()

    def follow(self, should_stop: Callable[[], bool]) -> None:
        """Collect until `should_stop`, and wait for a Redis that goes away; raises as `drain`."""
        self._check_events()
        patience = Patience(should_stop)
        self.connection.ping()  # a wrong address is reported at once, not waited for
        while not should_stop():
            with CsvFile(self.path) as file:
                while not should_stop() and file.is_in_place():
                    try:
                        self._follow_file(file, should_stop, patience)
                    except AWAY as exc:
                        patience.wait(exc)
            if not should_stop():
                self._say_moved()

    def _check_events(self) -> None:
        if self.event_file is not None:
            self.event_file.check()

    def _follow_file(
        self, file: CsvFile, should_stop: Callable[[], bool], patience: Patience
    ) -> None:
        cursor = self._begin(file)
        with closing(Pages(self.connection)) as pages:
            while not should_stop() and self._commit(cursor, pages):
                patience.over()
                if pages.at_end:
                    pages.close()
                    wait_for_more(self.connection, cursor.position)
                    time.sleep(LINGER_S)
                    cursor.check()

    def _begin(self, file: CsvFile) -> Cursor:
        cursor = Cursor(self.connection, self.group, file, from_start=self.from_start)
        cursor.begin()
        self.from_start = False  # this file has them then, and the next one goes on
        return cursor

    def _say_moved(self) -> None:
        logger.warning("%s was moved or changed; it is opened again", self.path)
        time.sleep(REOPEN_S)

    def _commit(self, cursor: Cursor, pages: Pages) -> bool:
        """
        Collect as much as one fsync is worth: read, write, fsync, and tell Redis.

        False when the file was moved, removed or changed meanwhile; then Redis hears nothing, and
        what was written is found in the file beside, or else written again.
        """
        lines: list[str] = []
        events: list[tuple[str, Event]] = []
        bad: list[tuple[Entry, WireError]] = []
        count, last = 0, None
        for _ in range(COMMIT_ROWS // MAX_PAGE):
            entries = pages.after(last[0].decode() if last else cursor.position)
            if entries:
                count, last = count + len(entries), entries[-1]
                pages.ask_ahead(last)
            _parse(cursor.unseen(entries), lines, events, bad)
            if pages.at_end:
                break
        # Redis may have taken its time, and what goes into a file that is removed is lost.
        if not cursor.file.is_in_place():
            return False
        # The rows last: they say how far the file is, and what is behind is not read again.
        set_aside(self.path, bad)
        if self.event_file is not None:
            passed = cursor.passed_until
            self.event_file.append([e for e in events if stream_position(e[0]) > passed])
        cursor.file.append(lines)
        if not cursor.file.is_kept():
            return False
        self.rows += len(lines)
        self.bad += len(bad)
        if self.on_commit is not None and lines:
            self.on_commit(len(lines))
        if last:
            cursor.passed(last, count)
        return True


def _parse(
    entries: Sequence[Entry],
    lines: list[str],
    events: list[tuple[str, Event]],
    bad: list[tuple[Entry, WireError]],
) -> None:
    """Add the lines of the rows, the events and what is neither."""
    for entry, line in zip(entries, usual_lines(entries), strict=True):
        if line:
            lines.append(line)
            continue
        stream_id, fields = entry[0], fields_of(entry)
        try:
            if is_event(fields):
                events.append((stream_id.decode(), Event.from_fields(fields)))
            else:
                lines.append(csv_lines([csv_row(fields, stream_id)]))
        except WireError as exc:
            bad.append((entry, exc))
