"""
The code as it was before a change, for a bench that prints a ratio to it from the same run.

A bench starts itself, or a bench of that time, once more with the older packages first on the path.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: The last commit whose records say each statistic by name.
COMMIT = "2029a7a"


@contextmanager
def tree(commit: str = COMMIT) -> Iterator[Path]:
    """Lay the files of a commit into a folder; needs the repository's history."""
    with tempfile.TemporaryDirectory(prefix="bench-before-") as name:
        archive = subprocess.run(
            ["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE
        )
        subprocess.run(["tar", "-x", "-C", name], input=archive.stdout, check=True)
        command = Path(name) / "ptzmesh"
        command.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {name!r})\n"
            "from coordinator.cli import main\nmain()\n"
        )
        command.chmod(0o755)
        yield Path(name)


def told(tree: Path, *words: str) -> str:
    """Start the bench that runs once more, with the packages of a tree; return what it prints."""
    again = [sys.executable, str(Path(sys.argv[0]).resolve()), *words]
    return subprocess.run(
        again, cwd=tree, env=environment(tree), check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def environment(before: Path) -> dict[str, str]:
    """Return the environment in which Python imports the packages and test helpers of that time."""
    return {**os.environ, "PYTHONPATH": f"{before}{os.pathsep}{before / 'tests'}"}
