"""Where things are that a test of the files for deployment needs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from missing import missing

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"


def tool(name: str) -> str:
    """Give the path of a program: beside this Python, where pip puts it, or on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        missing(f"{name} is not installed; .ci/run lists Debian's packages, pip has '.[dev]'")
    return found
