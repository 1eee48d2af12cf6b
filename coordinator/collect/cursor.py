"""
How far a file is in the stream, and whether the stream is still the one that it was read from.

Redis may lose its data, or come back with an older copy, or with its clock set back, so that new
entries get ids below those in the file. Then the measurements themselves, not their ids, show what
the file has; and of pairs that a run publishes again that is open again, the first result stays.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import redis

from coordinator.collect.csvfile import CsvFile, Identity, rows_of
from coordinator.collect.doubt import Doubt
from coordinator.collect.groups import (
    create_group,
    drop_pending,
    entries_read,
    group_position,
    note_pass,
    places,
    set_group,
)
from coordinator.collect.rotated import identities, last_rows
from coordinator.results.results import are_events
from coordinator.results.stream import (
    START,
    Entry,
    entries_between,
    fields_of,
    last_id,
    stream_position,
)
from coordinator.runs.footprint import members
from worker.model.measurement import begun_at
from worker.wire import keyspace
from worker.wire.event import is_event

logger = logging.getLogger(__name__)

#: A collector that follows lets Redis know so often that it is there.
NOTE_S = 3600.0


class Mark(NamedTuple):
    """An entry that was dealt with; None for the identity where it need not be in the stream."""

    position: str
    identity: Identity | None


class Cursor:
    """
    A file's place in the stream.

    Of the entries behind it, some may be in the file, or in one before it, already:

    | state | `doubt` | which | left |
    |---|---|---|---|
    | sure | None | none: ids say what is new | when Redis has lost data: in doubt |
    | in doubt | up to an id | those up to it | at the first entry after it: sure |
    | in doubt, runs open again | and those runs | any | when they have ended: in doubt |

    It begins in doubt up to the highest id of the file, which is that of its last row, so sure at
    the next entry, unless Redis went back before. `_go_through_again` leads from any state to the
    second or the third, `check` from the third to the second, `unseen` from there to the first.

    Attributes:
        passed_until: What the group had passed when this began: on the disk, rows or not.
    """

    def __init__(
        self, connection: redis.Redis, group: str, file: CsvFile, *, from_start: bool = False
    ) -> None:
        """Stand where the file ends; `from_start` repeats what earlier files have, not this one."""
        self.connection, self.group, self.file = connection, group, file
        self.from_start = from_start
        self.passed_until = stream_position(START)
        self._last = Mark(file.cursor, file.last)
        self._doubt: Doubt | None = Doubt(file.highest)
        #: What `entries_read` is at the last entry; None where Redis cannot tell.
        self._read: int | None = None
        self._note_at = 0.0

    @property
    def position(self) -> str:
        """Stream id of the last entry that was dealt with."""
        return self._last.position

    def begin(self) -> None:
        """
        Set the group to the file's place, and make the group the file's own.

        A file without rows begins where an earlier one of this collector ended.
        """
        if self.from_start:
            self._go_through_again(START)
        else:
            known = places(self.connection)
            before, has_pending = known.get(self.group, (START, False))
            self.passed_until = stream_position(before)
            if self.position == START and has_pending:
                # Another reader has moved the group, so that its place says nothing.
                self._go_through_again(START)
            elif self.position == START:
                self._go_on(before, known)
        self.check()
        drop_pending(self.connection, self.group)

    def _go_on(self, before: str, groups: Collection[str]) -> None:
        """Begin behind what the group passed and earlier files hold: a crash may part the two."""
        earlier = [Mark(*row) for row in last_rows(self.file.path, groups)]
        positions = [before, *(mark.position for mark in earlier if self._has(mark))]
        self._last = Mark(max(positions, key=stream_position), None)
        # Of a few events a file has no row.
        if self.position != START and not are_events(self.connection, self.position):
            level = logging.INFO if earlier else logging.WARNING
            why = "%s is new: rows that an earlier file had are not repeated; for all: --from-start"
            logger.log(level, why, self.file.path)

    def _note(self) -> None:
        note_pass(self.connection, self.group)
        self._note_at = time.monotonic() + NOTE_S

    def check(self) -> None:
        """Look whether the stream still has our last entry, and the group our position."""
        if self._last.identity is not None and not self._has(self._last):
            # What the group passed was on the disk: here, or in an earlier file.
            passed = group_position(self.connection, self.group) or START
            if not self._is_event(passed):  # behind one, our last row may be trimmed
                logger.warning(
                    "the stream no longer has entry %s, which was read last: Redis lost data or "
                    "was trimmed by hand; what it has and %s has not is collected",
                    self.position,
                    self.file.path,
                )
            self._go_through_again(min(passed, self.position, key=stream_position))
        group_at = group_position(self.connection, self.group)
        if group_at != self.position:
            create_group(self.connection, self.group, self.position)
        if group_at is None or time.monotonic() >= self._note_at:
            self._note()
        self._read = entries_read(self.connection, self.group)
        if self._doubt is not None and self._doubt.reopened:
            self._doubt.keep_open(self._runs(keyspace.RUNS_OPEN), self._newest())

    def unseen(self, entries: list[Entry]) -> list[Entry]:
        """Leave out what is in the files already."""
        doubt = self._doubt
        if doubt is None:
            return entries
        if not entries:
            doubt.forget_rows()
            return entries
        if not doubt.covers(entries[0][0]):
            self._doubt = None
            return entries
        doubt.read_rows(self._written)
        return [
            entry
            for entry in entries
            if not (doubt.covers(entry[0]) and doubt.has(_identity(fields_of(entry))))
        ]

    def passed(self, last: Entry, count: int) -> None:
        """Note that the next `count` entries, up to `last`, are on the disk; let Redis know."""
        before, self._last = self._last, Mark(last[0].decode(), _identity(fields_of(last)))
        if self._read is not None:
            self._read += count
        if not set_group(self.connection, self.group, self.position, self._read):
            logger.warning(
                "group %s is gone: Redis lost its data, or somebody removed the collector; it is "
                "made again",
                self.group,
            )
            if not self._has(before):  # what was read just now may be of another life of Redis
                self._go_through_again(START)
            create_group(self.connection, self.group, self.position)
            self._note()

    def _go_through_again(self, start: str) -> None:
        """Be in doubt of all that the stream has from `start` to its end."""
        until = max(stream_position(self.position), self._newest())
        if self._doubt is not None:
            until = max(until, self._doubt.until)
        self._doubt = Doubt(until, self._runs(keyspace.RUNS), self._runs(keyspace.RUNS_OPEN))
        self._last, self._read = Mark(start, None), None
        # What comes there may be new; a file of events tells by itself what it has.
        self.passed_until = min(self.passed_until, stream_position(start))

    def _written(self) -> Iterator[Identity]:
        yield from rows_of(self.file.path)
        if not self.from_start:
            yield from identities(self.file.path, places(self.connection))

    def _has(self, mark: Mark) -> bool:
        """Return whether the stream has this very entry."""
        fields = self._fields_at(mark.position)
        return fields is not None and _identity(fields) == mark.identity

    def _is_event(self, stream_id: str) -> bool:
        fields = self._fields_at(stream_id)
        return fields is not None and is_event(fields)

    def _fields_at(self, stream_id: str) -> Mapping[bytes, bytes] | None:
        entries = entries_between(self.connection, stream_id, stream_id)
        return fields_of(entries[0]) if entries else None

    def _runs(self, key: str) -> frozenset[str]:
        return frozenset(members(self.connection, key))

    def _newest(self) -> tuple[int, int]:
        return stream_position(last_id(self.connection))


def _identity(fields: Mapping[bytes, bytes]) -> Identity:
    """Return the identity of the row that these fields make in the file."""
    named = Identity._fields[:-1]
    texts = (fields.get(name.encode(), b"").decode(errors="replace") for name in named)
    return Identity._make([*texts, begun_at(fields)])
