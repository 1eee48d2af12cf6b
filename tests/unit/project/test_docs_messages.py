"""The page of fixes and the messages of the product agree, both ways."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.model.measurement import Outcome

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
SOURCES = sorted([*(ROOT / "worker").rglob("*.py"), *(ROOT / "coordinator").rglob("*.py")])
#: What a person meets; a WireError is told by a worker's log as `job … refused: …`.
FAULTS = {"ConfigError", "RedisUnavailable", "RunIncomplete", "ToolError", "PtzmeshError"}


def skeleton(node: ast.AST) -> str:
    """Give a text with `…` for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%(\.\d+)?[srdf]", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(skeleton(part) for part in node.values)
    return "…"


def raised() -> dict[str, str]:
    """Give what the product says when it fails → where it does."""
    found = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if name in FAULTS and isinstance(node, ast.Call) and node.args:
                text = skeleton(node.args[0])
                if text != "…":  # made elsewhere, of a text that is found there
                    found[text] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return found


def texts() -> Iterator[str]:
    """Yield every text of the source, as it may be said."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Constant, ast.JoinedStr)):
                yield skeleton(node)


def documented() -> list[str]:
    """Give the first cells of the tables of messages, each message of them."""
    head = r"\n\| (?:error|error or log line|log line) \|"
    tables = re.findall(head + r".*?\n\n", PAGE + "\n", re.DOTALL)
    cells = [row.split(" | ")[0] for table in tables for row in table.strip().splitlines()[2:]]
    return [text for cell in cells for text in re.findall(r"`([^`]+)`", cell) if " " in text]


def pattern(message: str) -> re.Pattern[str]:
    parts = [re.escape(part) for part in message.split("…")]
    return re.compile(".*".join(parts), re.DOTALL)


#: Of click, which checks the values of options; tests/integration/test_errors.py has them said.
OF_CLICK = "… is not a valid integer"
#: Of the source's texts, joined where one message is put together of several.
ALL_TEXTS = "\n".join([*texts(), OF_CLICK])


@pytest.mark.parametrize("message", documented())
def test_message_that_is_documented_is_in_the_source(message: str) -> None:
    fixed = [part.strip() for part in message.split("…") if part.strip(" :;,()")]
    assert fixed, "says nothing"
    missing = [part for part in fixed if part.rstrip(" (") not in ALL_TEXTS]
    assert missing == []


@pytest.mark.parametrize(("text", "place"), raised().items())
def test_failure_that_a_person_can_meet_is_documented(text: str, place: str) -> None:
    known = [pattern(message) for message in documented()]
    # The pattern of bounds alone, `… (…) must be …`, is long enough to mean something.
    assert any(one.fullmatch(text) or one.match(text) for one in known), f"{place}: {text}"


def test_every_outcome_has_what_happened_and_a_place_to_look() -> None:
    rows = re.findall(r"^\| (`.*?) \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE)
    cells = {name for cell in rows for name in re.findall(r"`(\w+)`", cell)}
    assert [one.value for one in Outcome if one.value not in cells] == []
