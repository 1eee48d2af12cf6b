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
from collections.abc import Mapping
from typing import cast

import redis

from coordinator.csvfile import CsvFile, Identity
from coordinator.groups import (
    create_group,
    drop_pending,
    entries_read,
    group_position,
    note_pass,
    set_group,
)
from coordinator.results import START, Entry, last_id
from coordinator.runs import stream_position
from worker import keyspace

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
        self._note_at = 0.0

    def begin(self) -> None:
        """Set the group to the file's place, and make the group the file's own."""
        self.check()
        drop_pending(self.connection, self.group)
        self._note()

    def _note(self) -> None:
        note_pass(self.connection, self.group)
        self._note_at = time.monotonic() + NOTE_S

    def check(self) -> None:
        """Look whether the stream still has our last entry, and the group our position."""
        if self._last is not None and not self._has_last():
            logger.warning(
                "the stream no longer has entry %s, which was read last: Redis lost data or was "
                "trimmed by hand; what it has and %s has not is collected",
                self.position,
                self.file.path,
            )
            self._doubt()
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
            self._known = set(map(hash, self.file.identities()))
            if self._runs:
                self._known |= {
                    hash(one[:PAIR]) for one in self.file.identities() if one.run in self._runs
                }
        return [one for one in entries if not self._is_in_doubt(one) or not self._is_known(one)]

    def passed(self, last: Entry, count: int) -> None:
        """Note that the next `count` entries, up to `last`, are on the disk; let Redis know."""
        self.position, self._last = last[0].decode(), _identity(last[1])
        if self._read is not None:
            self._read += count
        if not set_group(self.connection, self.group, self.position, self._read):
            logger.warning(
                "group %s is gone: Redis lost its data, or somebody removed the collector; it is "
                "made again",
                self.group,
            )
            self._doubt()
            create_group(self.connection, self.group, self.position)
            self._note()

    def _has_last(self) -> bool:
        found = cast(
            "list[Entry]", self.connection.xrange(keyspace.RESULTS, self.position, self.position)
        )
        return bool(found) and _identity(found[0][1]) == self._last

    def _is_in_doubt(self, entry: Entry) -> bool:
        return bool(self._reopened) or stream_position(entry[0]) <= self._doubt_until

    def _is_known(self, entry: Entry) -> bool:
        identity = _identity(entry[1])
        known = self._known or set()
        return hash(identity) in known or hash(identity[:PAIR]) in known

    def _doubt(self) -> None:
        """Go through the whole stream again, leaving out what the file has."""
        self._runs = self._names(keyspace.RUNS)
        self._reopened = self._names(keyspace.RUNS_OPEN)
        self._doubt_until = max(self._doubt_until, stream_position(self.position), self._newest())
        self.position, self._last, self._known, self._read = START, None, None, None

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
