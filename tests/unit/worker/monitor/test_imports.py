"""A host such as PTZJEPA need not install more than our core dependencies."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import worker.monitor
from worker.monitor.mounts import mount_probe

FOLDER = Path(worker.monitor.__file__).parent
ALLOWED = {"worker", "redis", "rq", "msgpack"}


def imported(path: Path) -> Iterator[str]:
    """Give the top-level name of each import of a file, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_only_the_standard_library_and_core_dependencies_are_imported(path: Path) -> None:
    assert {name for name in imported(path) if name not in sys.stdlib_module_names} <= ALLOWED


def test_the_probe_of_mounts_needs_no_installed_package() -> None:
    path = Path(mount_probe.__file__)
    assert {name for name in imported(path) if name not in sys.stdlib_module_names} == set()


def test_every_promised_name_is_there() -> None:
    assert all(hasattr(worker.monitor, name) for name in worker.monitor.__all__)
