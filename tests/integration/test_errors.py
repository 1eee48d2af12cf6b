"""
Each cause that leads to an error has its own advice, as docs/troubleshooting.md says.

The commands run in this process, as a hundred starts of Python would take a minute.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from coordinator.cli import main
from integration.causes import CASES, World

pytestmark = pytest.mark.redis

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
HEAD = "| cause | error | advice | exit |"


@pytest.fixture(scope="module")
def _logging_as_before() -> Iterator[None]:
    """A command configures logging for its process, which here is that of all tests."""
    root, ours = logging.getLogger(), [logging.getLogger(one) for one in ("worker", "coordinator")]
    before = root.level, list(root.handlers), [one.level for one in ours]
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for one, level in zip(ours, before[2], strict=True):
        one.setLevel(level)


@pytest.fixture
def world(
    redis_url: str,
    connection: redis.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    _logging_as_before: None,
) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PTZMESH_REDIS_URL", redis_url)
    made = World(redis_url, connection, tmp_path)
    yield made
    connection.config_set("maxmemory", 0)
    for one in made.held:
        one.close()


def said(typed: str, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> Said:
    """Type a line as in a shell: variables first, then what follows `ptzmesh`."""
    words = shlex.split(typed)
    while "=" in words[0]:
        patch.setenv(*words.pop(0).split("=", 1))
    with pytest.raises(SystemExit) as caught:
        main(words)
    shown = capsys.readouterr()
    return Said(caught.value.code, shown.out, shown.err)


class Said(NamedTuple):
    """What a command said."""

    code: object
    out: str
    err: str


def table() -> dict[str, tuple[str, str, str]]:
    """Give cause → error, advice and exit code, as the page has them."""
    rows = PAGE.partition(f"{HEAD}\n")[2].strip().splitlines()[1:]
    cells = [line.strip("| ").split(" | ") for line in rows]
    return {
        cause: (error.strip("`"), advice.strip("`"), code) for cause, error, advice, code in cells
    }


TABLE = table()


def test_table_has_just_the_causes_that_are_tried() -> None:
    assert list(TABLE) == list(CASES)


@pytest.mark.parametrize("cause", CASES)
def test_cause_has_the_error_and_the_advice_that_the_page_says(
    cause: str, world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed, prepare = CASES[cause]
    prepare(world)
    code, out, err = said(typed, capsys, monkeypatch)
    error, advice, exit_code = TABLE[cause]
    (line,) = err.splitlines()
    assert re.match("error: " + ".*".join(map(re.escape, error.split("…"))), line)
    assert advice in line
    assert str(code) == exit_code
    # `verify` lists the pairs before it fails.
    assert not out or typed.startswith("verify")
