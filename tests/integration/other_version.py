"""Another version of this package beside it: a copy with changes, in processes of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from coordinator.embedded import EmbeddedServer, embedded_server
from integration.nodes import workers

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Other:
    """A ptzmesh of another version: its folder, and what it calls itself."""

    folder: Path
    wire: int
    version: str

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder)}

    def python(self, code: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=300,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def cli(self, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "coordinator.cli", *arguments],
            env={**self.environment, "PTZMESH_REDIS_URL": url},
            cwd=self.folder, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip


def other_version(
    folder: Path, wire: int, version: str, changes: Sequence[tuple[str, str, str]] = ()
) -> Other:
    """Copy the package; a change is of a file: a text that it has once, and what comes after it."""
    for package in ("worker", "coordinator"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    constants = {
        "worker/model/version.py": (r"(?m)^WIRE_VERSION = \d+$", f"WIRE_VERSION = {wire}"),
        "worker/__init__.py": (r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"'),
    }
    for name, (pattern, text) in constants.items():
        file = folder / name
        changed, count = re.subn(pattern, text, file.read_text())
        assert count == 1, name
        file.write_text(changed)
    for name, text, more in changes:
        file = folder / name
        before = file.read_text() if file.exists() else ""
        assert before.count(text) == 1 or not text, f"{name}: {text}"
        file.write_text(before.replace(text, text + more) if text else before + more)
    made = Other(folder, wire, version)
    ask = "import worker, worker.model.version as v\nprint(v.WIRE_VERSION, worker.__file__)"
    said = made.python(ask)
    assert said.split() == [str(wire), str(folder / "worker" / "__init__.py")]
    return made


@contextmanager
def their_workers(
    other: Other, url: str, connection: redis.Redis, folder: Path, names: Sequence[str]
) -> Iterator[None]:
    """Run workers of theirs, at 127.0.0.11 and after it, until the block ends."""
    folder.mkdir(exist_ok=True)
    env = {**other.environment, "PTZMESH_REDIS_URL": url}
    with workers(url, connection, folder, names, first=11, env=env, alone=True):
        yield


@contextmanager
def mixed_mesh(
    other: Other, folder: Path, binary: Path, ours: Sequence[str], theirs: Sequence[str]
) -> Iterator[EmbeddedServer]:
    """Run nodes of ours and nodes of theirs at a server of their own, until the block ends."""
    with embedded_server(folder, binary=binary) as server:
        connection = redis.Redis.from_url(server.url)
        with (
            workers(server.url, connection, folder, ours),
            their_workers(other, server.url, connection, folder / "theirs", theirs),
        ):
            yield server
