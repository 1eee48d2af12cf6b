"""
A wall clock of its own for the processes of one node, which a test sets while they run.

A machine has one wall clock for all network namespaces, and time namespaces have none of their own
(time_namespaces(7)). So a small library is preloaded into the node's processes (`clock_step.c`),
which moves all that tells wall-clock time, the kernel's receive stamps included. libfaketime leaves
these as they are, which is no clock that any machine has. Needs a C compiler.
"""

from __future__ import annotations

import mmap
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("clock_step.c")
FAR_NS = 2**63 - 1
#: Long enough for the numbers to be in place before they count.
SOON_NS = 1_000_000


@cache
def why_unusable() -> str | None:
    """Say in one line what is missing for clocks of nodes; None when nothing is."""
    return None if shutil.which("cc") else "clocks of nodes need a C compiler (cc)"


def build(folder: Path) -> Path:
    """Compile the library into a folder."""
    library = folder / "clock_step.so"
    argv = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return library


class NodeClock:
    """The wall clock of one node's processes; it is the machine's until it is stepped."""

    def __init__(self, library: Path, file: Path) -> None:
        """Make the file that the library looks at."""
        self._library, self._file = library, file
        file.write_bytes(bytes(24))
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), 24)
        self._numbers = memoryview(self._map).cast("q")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs a program on this clock."""
        return ("env", f"LD_PRELOAD={self._library}", f"CHAOS_CLOCK={self._file}")

    @property
    def ahead_s(self) -> float:
        """How far it is ahead of the machine's."""
        return self._numbers[2] / 1e9

    def step(self, ahead_s: float) -> None:
        """Set it so far ahead of the machine's; negative is behind."""
        numbers = self._numbers
        # In this order every reader sees the present distance until the moment of the step.
        numbers[1] = numbers[2]
        numbers[0] = FAR_NS
        numbers[2] = round(ahead_s * 1e9)
        numbers[0] = time.time_ns() + SOON_NS
