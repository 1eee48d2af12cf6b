"""
How far a file is in the stream, and whether the stream is still the one that it was read from.

Redis may lose its data, or come back with an older copy, and its clock may have stepped back, so
that new entries get ids below those in the file. Then what the file has is told by the
measurements themselves, not by their ids.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import cast

import redis

from coordinator.csvfile import CsvFile, Identity
from coordinator.groups import (
    create_group,
    drop_pending,
    entries_read,
    group_position,
    set_group,
)
from coordinator.results import START, Entry
from coordinator.runs import stream_position
from worker import keyspace

logger = logging.getLogger(__name__)


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
        self._known: set[int] | None = None
        self._read: int | None = None

    def begin(self) -> None:
        """Set the group to the file's place, and make the group the file's own."""
        self.check()
        drop_pending(self.connection, self.group)

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
        elif known != self.position:
            set_group(self.connection, self.group, self.position)
        self._read = entries_read(self.connection, self.group)

    def unseen(self, entries: list[Entry]) -> list[Entry]:
        """Leave out what is in the file already."""
        if not entries or stream_position(entries[0][0]) > self._doubt_until:
            self._known = None
            return entries
        if self._known is None:
            # 64 bits of each row: a file of 10^6 rows takes 60 MB, only while in doubt.
            self._known = set(map(hash, self.file.identities()))
        return [
            (stream_id, fields)
            for stream_id, fields in entries
            if stream_position(stream_id) > self._doubt_until
            or hash(_identity(fields)) not in self._known
        ]

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

    def _has_last(self) -> bool:
        found = cast(
            "list[Entry]", self.connection.xrange(keyspace.RESULTS, self.position, self.position)
        )
        return bool(found) and _identity(found[0][1]) == self._last

    def _doubt(self) -> None:
        """Go through the whole stream again, leaving out what the file has."""
        self._doubt_until = max(self._doubt_until, stream_position(self.position))
        self.position, self._last, self._known, self._read = START, None, None, None


def _identity(fields: Mapping[bytes, bytes]) -> Identity:
    """Give the same identity as the row that these fields make in the file."""
    return Identity(
        *(fields.get(name.encode(), b"").decode(errors="replace") for name in Identity._fields)
    )
