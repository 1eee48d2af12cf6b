"""
What the supervisor of a node holds as true, for the jobs that are forked long after it began.

One anonymous piece of memory that the supervisor writes and its children read: no file that could
not be written, no lock that a killed process could hold. Two slots are written in turn, and a sum
shows whether one was read while it was written.
"""

from __future__ import annotations

import mmap
import pickle
import struct
import zlib
from typing import Any

#: Of one slot; pages that are never written cost nothing. A settings file has 4 MiB at most.
SLOT_BYTES = 8 * 1024 * 1024
#: Of what follows: its length, and its CRC.
_HEAD = struct.Struct("=QI")


class Held:
    """A value that one process puts, and that it and all that it forked afterwards can get."""

    def __init__(self, value: object) -> None:
        """Begin with a value."""
        self._memory = mmap.mmap(-1, 8 + 2 * SLOT_BYTES)
        self._turn = memoryview(self._memory)[:8].cast("Q")
        self.put(value)

    def put(self, value: object) -> None:
        """Replace the value; by the process that began it only."""
        packed = pickle.dumps(value)
        framed = _HEAD.pack(len(packed), zlib.crc32(packed)) + packed
        turn = self._turn[0] + 1
        slot = self._slot(turn)
        self._memory[slot : slot + len(framed)] = framed
        self._turn[0] = turn

    def get(self) -> Any:
        """Return the value that was put last."""
        while True:
            slot = self._slot(self._turn[0])
            length, crc = _HEAD.unpack_from(self._memory, slot)
            begin = slot + _HEAD.size
            packed = self._memory[begin : begin + min(length, SLOT_BYTES - _HEAD.size)]
            if zlib.crc32(packed) == crc:
                # Nobody but our own supervisor can write to this memory.
                return pickle.loads(packed)  # noqa: S301

    def _slot(self, turn: int) -> int:
        return 8 + turn % 2 * SLOT_BYTES
