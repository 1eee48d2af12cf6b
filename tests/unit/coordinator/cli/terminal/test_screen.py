"""How wide the consoles are: a terminal's width, a pipe's, and that which watch(1) tells."""

from __future__ import annotations

import pytest

from coordinator.cli.terminal import screen

ROW = {f"column-{place:02}": f"value-{place:02}" for place in range(30)}


def test_a_list_in_a_pipe_has_all_columns_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    screen.print_list([ROW])
    head, _, row = capsys.readouterr().out.splitlines()
    assert len(head.split()) == len(row.split()) == 30


def test_under_watch_a_list_is_as_wide_as_its_terminal_and_still_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    screen.print_list([ROW])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert {f"value-{place:02}" for place in range(30)} <= set(" ".join(lines).split())


@pytest.mark.parametrize("columns", ["", "0", "-5", "wide", "9" * 30])
def test_a_width_that_makes_no_sense_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert screen.out().width == screen.PIPE_WIDTH
