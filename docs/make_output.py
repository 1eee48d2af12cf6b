"""Writes output.txt and mesh.svg in docs/analyse: `python docs/make_output.py`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "analyse"
PAGE = FOLDER / "output.txt"
#: What the page shows → the line that begins it.
PARTS = {
    "rtt": "Round-trip time",
    "loss": "The five paths",
    "throughput": "Throughput",
    "change": "Loss of each source",
}


def printed(csv: Path, picture: Path, target: str) -> str:
    """Return what the example prints of a file."""
    command = [sys.executable, str(FOLDER / "analyse.py"), str(csv), str(picture), target]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()) + "\n"


def page(output: str) -> str:
    """Return the output with a mark before and after each part that the page shows."""
    parts = []
    for name, beginning in PARTS.items():
        part = re.search(rf"^{beginning}.*?(?=\n\n)", output, re.DOTALL | re.MULTILINE)
        assert part is not None, name
        parts.append(f"--8<-- [start:{name}]\n{part.group()}\n--8<-- [end:{name}]\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(
        page(printed(FOLDER / "mesh.csv", FOLDER / "mesh.svg", "hub")), encoding="utf-8"
    )
