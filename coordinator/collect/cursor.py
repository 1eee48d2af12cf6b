"""
How far a file is in the stream, and whether the stream is still the one that it was read from.

Redis may lose its data, or come back with an older copy, and its clock may have stepped back, so
that new entries get ids below those in the file. Then what the file has is told by the
measurements themselves, not by their ids; and a run that is open again in an older copy may publish
pairs of which the file has the first result: that one stays, as a pair has one row.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import cast

import redis

from coordinator.collect.csvfile import CsvFile, Identity
from coordinator.collect.groups import (
    collectors,
    create_group,
    drop_pending,
    entries_read,
    group_position,
    has_pending,
    note_pass,
    set_group,
)
from coordinator.collect.rotated import identities, last_rows
from coordinator.results.results import are_events
from coordinator.results.stream import START, Entry, last_id, stream_position
from worker.model.event import is_event
from worker.wire import keyspace

logger = logging.getLogger(__name__)

#: So many fields of an identity name a pair of a run.
PAIR = 4
#: A collector that follows lets Redis know so often that it is there.
NOTE_S = 3600.0


class Place:
    """
    A file's place in the stream.

    Attributes:
        position: Stream id of the last entry that was dealt with.
        passed_until: What the group had passed when this began: on the disk, rows or not.
    """

    def __init__(self, connection: redis.Redis, group: str, file: CsvFile) -> None:
        """Begin where the file ends."""
        self.connection, self.group, self.file = connection, group, file
        self.position = file.cursor
        self._last = file.last
        #: Entries up to here may be in the file already.
        self._doubt_until = file.highest
        #: Runs that Redis knew when it was found to have gone back, and those of them still open.
        self._runs: set[str] = set()
        self._reopened: set[str] = set()
        self._known: set[int] | None = None
        self._read: int | None = None
        self._from_start = False
        self._note_at = 0.0
        self.passed_until = stream_position(START)

    def begin(self, *, from_start: bool = False) -> None:
        """
        Set the group to the file's place, and make the group the file's own.

        A file without rows begins where an earlier one of this collector ended.

        Args:
            from_start: Go through the whole stream; what the file has is left out all the same.
        """
        self._from_start = from_start
        if not from_start:
            before = group_position(self.connection, self.group)
            self.passed_until = stream_position(before or START)
        if from_start:
            self._doubt(START)
        elif self.position == START:
            self._go_on()
        self.check()
        drop_pending(self.connection, self.group)
        self._note()

    def _go_on(self) -> None:
        """Begin behind what earlier files hold; Redis may not know of the last rows of a crash."""
        if has_pending(self.connection, self.group):
            # Another reader has moved the group, so that its place says nothing.
            self._doubt(START)
            return
        self.position = group_position(self.connection, self.group) or START
        earlier = list(last_rows(self.file.path, self._groups()))
        for stream_id, identity in earlier:
            ahead = stream_position(stream_id) > stream_position(self.position)
            if ahead and self._has(stream_id, identity):
                self.position = stream_id
        if self._has_passed_rows():
            level = logging.INFO if earlier else logging.WARNING
            why = "%s is new: rows that an earlier file had are not repeated; for all: --from-start"
            logger.log(level, why, self.file.path)

    def _has_passed_rows(self) -> bool:
        """Tell whether what is behind us is more than a few events, of which a file has no row."""
        is_some = stream_position(self.position) > stream_position(START)
        return is_some and not are_events(self.connection, self.position)

    def _note(self) -> None:
        note_pass(self.connection, self.group)
        self._note_at = time.monotonic() + NOTE_S

    def check(self) -> None:
        """Look whether the stream still has our last entry, and the group our position."""
        if self._last is not None and not self._has(self.position, self._last):
            # What the group passed was on the disk: here, or in an earlier file.
            passed = group_position(self.connection, self.group) or START
            if not self._is_event(passed):  # behind one, our last row may be trimmed
                logger.warning(
                    "the stream no longer has entry %s, which was read last: Redis lost data or "
                    "was trimmed by hand; what it has and %s has not is collected",
                    self.position,
                    self.file.path,
                )
            self._doubt(min(passed, self.position, key=stream_position))
        known = group_position(self.connection, self.group)
        if known is None:
            create_group(self.connection, self.group, self.position)
            self._note()
        elif known != self.position:
            set_group(self.connection, self.group, self.position)
        if time.monotonic() >= self._note_at:
            self._note()
        self._read = entries_read(self.connection, self.group)
        if self._reopened:
            self._reopened &= self._names(keyspace.RUNS_OPEN)
            self._doubt_until = max(self._doubt_until, self._newest())

    def unseen(self, entries: list[Entry]) -> list[Entry]:
        """Leave out what is in the file already."""
        if not entries or not self._is_in_doubt(entries[0]):
            self._known = None
            return entries
        if self._known is None:
            # 64 bits of each row and pair: a file of 10^6 rows takes 120 MB, only while in doubt.
            self._known = set()
            for one in self._written():
                self._known.add(hash(one))
                if one.run in self._runs:
                    self._known.add(hash(one[:PAIR]))
        return [one for one in entries if not self._is_in_doubt(one) or not self._is_known(one)]

    def passed(self, last: Entry, count: int) -> None:
        """Note that the next `count` entries, up to `last`, are on the disk; let Redis know."""
        before, self._last = (self.position, self._last), _identity(last[1])
        self.position = last[0].decode()
        if self._read is not None:
            self._read += count
        if not set_group(self.connection, self.group, self.position, self._read):
            logger.warning(
                "group %s is gone: Redis lost its data, or somebody removed the collector; it is "
                "made again",
                self.group,
            )
            if not self._has(*before):  # what was read just now may be of another life of Redis
                self._doubt(START)
            create_group(self.connection, self.group, self.position)
            self._note()

    def _written(self) -> Iterator[Identity]:
        yield from self.file.identities()
        if not self._from_start:
            yield from identities(self.file.path, self._groups())

    def _groups(self) -> list[str]:
        return [one.name for one in collectors(self.connection)]

    def _has(self, stream_id: str, identity: Identity | None) -> bool:
        """Tell whether the stream has this very entry."""
        found = cast("list[Entry]", self.connection.xrange(keyspace.RESULTS, stream_id, stream_id))
        return bool(found) and _identity(found[0][1]) == identity

    def _is_event(self, stream_id: str) -> bool:
        found = cast("list[Entry]", self.connection.xrange(keyspace.RESULTS, stream_id, stream_id))
        return bool(found) and is_event(found[0][1])

    def _is_in_doubt(self, entry: Entry) -> bool:
        return bool(self._reopened) or stream_position(entry[0]) <= self._doubt_until

    def _is_known(self, entry: Entry) -> bool:
        identity = _identity(entry[1])
        known = self._known or set()
        return hash(identity) in known or hash(identity[:PAIR]) in known

    def _doubt(self, start: str) -> None:
        """Go through the stream again from `start`, leaving out what is in the files."""
        self._runs = self._names(keyspace.RUNS)
        self._reopened = self._names(keyspace.RUNS_OPEN)
        self._doubt_until = max(self._doubt_until, stream_position(self.position), self._newest())
        self.position, self._last, self._known, self._read = start, None, None, None
        # What comes there may be new; a file of events tells by itself what it has.
        self.passed_until = min(self.passed_until, stream_position(start))

    def _names(self, key: str) -> set[str]:
        names = cast("list[bytes]", self.connection.zrange(key, 0, -1))
        return {name.decode(errors="replace") for name in names}

    def _newest(self) -> tuple[int, int]:
        return stream_position(last_id(self.connection))


def _identity(fields: Mapping[bytes, bytes]) -> Identity:
    """Give the same identity as the row that these fields make in the file."""
    return Identity(
        *(fields.get(name.encode(), b"").decode(errors="replace") for name in Identity._fields)
    )
