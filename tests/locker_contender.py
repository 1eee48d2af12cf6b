"""
One process of the contention test: takes and frees lockers, and proves that it was alone in each.

    python locker_contender.py KIND PORT PASSWORD FOLDER NUMBER ROUNDS

`KIND` is `ours` or `unchanged`. For each locker FOLDER has a file of 16 bytes: a counter that is
read, waited with and written back, and the number of who is inside. Prints one JSON object.
"""

from __future__ import annotations

import json
import mmap
import random
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptzjepa import UnchangedLockers

from worker.monitor import MultiLockerSystem
from worker.monitor.lockers import lockers

LOCKERS = 2
#: PTZJEPA waits 0.1 s between attempts; more attempts a second make more contention.
RETRY_S = 0.001
INSIDE = struct.Struct("=QQ")


def main() -> None:
    kind, port, password, folder, number, rounds = sys.argv[1:]
    pauses = _count_pauses()
    lockers.RETRY_S = RETRY_S
    make: Any = MultiLockerSystem if kind == "ours" else UnchangedLockers
    system = make("127.0.0.1", int(port), password, "file_lockers", LOCKERS, 600, 60)
    system.retry_s = RETRY_S
    cells = [_map(Path(folder, f"locker-{n}")) for n in range(LOCKERS)]
    rng = random.Random(int(number))
    taken, doubled, not_freed, contended = [0] * LOCKERS, 0, 0, 0
    for _ in range(int(rounds)):
        locker = rng.randrange(LOCKERS)
        pauses_before = pauses()
        if system.acquire_locker(locker) is None:
            continue
        contended += pauses() > pauses_before
        taken[locker] += 1
        doubled += not _alone(cells[locker], int(number) + 1)
        not_freed += not system.release_locker(locker)
    told = {"taken": taken, "doubled": doubled, "not_freed": not_freed}
    sys.stdout.write(json.dumps(told | {"contended": contended}))


def _alone(cell: mmap.mmap, me: int) -> bool:
    """Count in steps that two at once would spoil; say whether nobody else was inside."""
    counter, inside = INSIDE.unpack_from(cell)
    INSIDE.pack_into(cell, 0, counter, me)
    time.sleep(0.0003)
    _, still = INSIDE.unpack_from(cell)
    INSIDE.pack_into(cell, 0, counter + 1, 0)
    return bool(inside == 0 and still == me)


def _count_pauses() -> Callable[[], int]:
    """Count the pauses between attempts, of either class: each met the locker taken."""
    sleep, count = time.sleep, [0]

    def counted(seconds: Any) -> None:
        count[0] += seconds == RETRY_S
        sleep(seconds)

    time.sleep = counted
    return lambda: count[0]


def _map(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), INSIDE.size)


if __name__ == "__main__":
    main()
