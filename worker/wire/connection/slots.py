"""
Where each process of a node counts: a slot of its own, in pages that all of them share.

So no other process writes to it, and there is no lock that a killed process could hold.
"""

from __future__ import annotations

import mmap
import os
from typing import Any, Literal

#: Role of a process → its slot. RQ has one work-horse a worker at a time.
SLOTS = {"supervisor": 0, "prober": 1, "responder": 2}
#: Slot of a worker → that of the work-horse it forks; any other fork counts elsewhere.
HORSE = {1: 3, 2: 4}
OTHER = 5

_mine = SLOTS["supervisor"]


def page(kind: Literal["Q", "d"]) -> memoryview[Any]:
    """Return a number a slot, whole or not, all 0."""
    return memoryview(mmap.mmap(-1, 8 * (OTHER + 1))).cast(kind)


def mine() -> int:
    """Return this process' slot."""
    return _mine


def take(role: str) -> None:
    """Note what this process is; one that is forked from it gets a slot of its own."""
    global _mine
    _mine = SLOTS[role]


def _after_fork() -> None:
    global _mine
    _mine = HORSE.get(_mine, OTHER)


os.register_at_fork(after_in_child=_after_fork)
