"""The folders are as docs/architecture.md and pyproject.toml say, and small."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

from coordinator.cli.group import COMMANDS, load

ROOT = Path(__file__).parents[3]
ROOMS = sorted(
    path.parent for side in ("coordinator", "worker") for path in (ROOT / side).rglob("__init__.py")
)
#: A file a command, and rooms of the plainest values.
MOST_MODULES = {"coordinator/cli": 20, "worker/model": 15}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def rooms_of_the_map() -> set[str]:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.partition("## Where things are")[2].partition("\n## ")[0]
    firsts = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {
        named.rstrip("/")
        for first in firsts
        for named in re.findall(r"`((?:worker|coordinator)/[\w/]*)`", first)
    }


def test_map_has_each_room_once_and_no_other() -> None:
    inside = {"worker/probes/", "worker/monitor/", "coordinator/checks/network"}
    rooms = {
        name_of(room)
        for room in ROOMS
        if len(room.relative_to(ROOT).parts) > 1 and not name_of(room).startswith(tuple(inside))
    }
    assert rooms_of_the_map() == rooms


def test_what_the_map_names_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.partition("## Where things are")[2].partition("\n## ")[0]
    for line in table.splitlines():
        if not line.startswith("| `"):
            continue
        _, first, _, contents, _ = line.split("|")
        for room in re.findall(r"`([\w/]+/)`", first):
            for named in re.findall(r"`([\w/]+)`", contents):
                # A word of a command, and what another room has.
                there = ROOT / room / named
                is_there = there.is_dir() or there.with_suffix(".py").exists()
                assert is_there or named == "answer" or named in ("sweep",), f"{room}: {named}"


def test_each_stop_of_a_walk_is_a_room_or_a_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    walks = re.findall(r"room by room\n\n```text\n(.*?)```", text, re.DOTALL)
    assert len(walks) == 2
    files = [path for side in ("coordinator", "worker") for path in (ROOT / side).rglob("*")]
    there = {name_of(path.with_suffix("")) for path in files if path.suffix in ("", ".py", ".lua")}
    for stop in {stop for walk in walks for stop in re.findall(r"\b[a-z]\w*/\w+", walk)}:
        assert any(f"/{name}".endswith(f"/{stop}") for name in there), stop


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_room_is_small_and_says_what_it_is_for(room: Path) -> None:
    modules = [path for path in room.glob("*.py") if not path.name.startswith("__")]
    assert len(modules) <= MOST_MODULES.get(name_of(room), 12)
    assert ast.get_docstring(ast.parse((room / "__init__.py").read_text()))


@pytest.mark.parametrize("side", ["coordinator", "worker", "tests"])
def test_no_module_is_long(side: str) -> None:
    lines = {
        name_of(path): len(path.read_text().splitlines()) for path in (ROOT / side).rglob("*.py")
    }
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_layers_of_the_linter_are_the_rooms() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for side in ("coordinator", "worker"):
        contract = text.partition(f'containers = ["{side}"]')[2].partition("]")[0]
        layers = set(re.findall(r"\w+", contract.partition("layers = [")[2]))
        folders = {room.name for room in ROOMS if room.parent == ROOT / side}
        assert layers - {"mesh"} == folders


@pytest.mark.parametrize("face", ["coordinator", "worker.monitor"])
def test_each_name_of_a_face_is_there(face: str) -> None:
    module = import_module(face)
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__doc__


def test_each_command_is_in_the_module_of_its_name() -> None:
    for name in COMMANDS:
        source = ROOT / "coordinator" / "cli" / f"{name}.py"
        assert ast.get_docstring(ast.parse(source.read_text())).startswith(f"`ptzmesh {name}`")
        assert load(name).name == name


def test_tests_that_the_makefile_names_are_there() -> None:
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    named = re.findall(r"\$\(addprefix (tests/[\w/]+),([^)]*)\)", text)
    files = [prefix + file.partition("::")[0] for prefix, rest in named for file in rest.split()]
    assert len(files) > 20
    assert [file for file in files if not (ROOT / file).exists()] == []
