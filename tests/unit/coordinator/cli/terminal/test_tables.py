"""Our tables look like those of rich, which take ten times as long."""

from __future__ import annotations

import io
import re

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from coordinator.cli.terminal.tables import Column, Table, width_of

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
WORDS = st.text("aZ9 -…é屋根\t\x1b", max_size=12)
STYLES = st.sampled_from(["", "dim", "bold", "green", "bold red"])


@st.composite
def columns(draw: st.DrawFn) -> list[Column]:
    names = draw(st.lists(WORDS.map("h".__add__), min_size=1, max_size=6))
    rows = draw(st.integers(0, 5))
    cells = st.builds(Text, WORDS.map(str.strip), STYLES)
    return [
        Column(
            name.rstrip(), draw(st.lists(cells, min_size=rows, max_size=rows)), draw(st.booleans())
        )
        for name in names
    ]


def printed(table: object, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard")
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]  # it is a StringIO


def marked(text: str) -> list[tuple[str, str]]:
    """Give each character that is to be seen, with what was said of its looks last."""
    shown, looks = list[tuple[str, str]](), ""
    for part in re.split(f"({ESCAPES.pattern})", text):
        if ESCAPES.fullmatch(part):
            looks = "" if part == "\x1b[0m" else part
        else:
            shown += [(char, looks) for char in part if char != " "]
    return shown


@given(columns())
def test_a_table_looks_as_that_of_rich_does(made: list[Column]) -> None:
    table = Table(made)
    width = width_of(made)
    ours, theirs = printed(table, width), printed(table._folded(), width)
    assert ESCAPES.sub("", ours) == ESCAPES.sub("", theirs)
    assert marked(ours) == marked(theirs)


def test_what_is_wider_than_the_console_is_folded_and_whole() -> None:
    table = Table([Column("name", [Text("a" * 30)]), Column("ms", [Text("1.25")], True)], "title")
    lines = ESCAPES.sub("", printed(table, 20)).splitlines()
    assert lines[0].strip() == "title"
    assert max(map(len, lines)) <= 20
    assert "".join(lines).count("a") == 31  # and that of `name`
    assert "1.25" in "".join(lines)
