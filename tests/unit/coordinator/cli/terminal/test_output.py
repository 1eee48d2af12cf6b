"""What programs read says what it is, and goes where it was asked for, or is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from samples import measurement

from coordinator.cli import main
from coordinator.cli.terminal.output import KINDS, print_csv, print_json
from worker.model.csv_columns import CSV_COLUMNS

CLI = Path(__file__).parents[5] / "coordinator" / "cli"


def test_object_says_its_type_first_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_json("node", {"name": "a", "type": "spoofed"})
    assert capsys.readouterr().out == '{"type": "node", "name": "a"}\n'


def test_every_object_on_stdout_is_printed_with_its_type_and_every_type_is_in_use() -> None:
    sources = {path.name: path.read_text() for path in CLI.rglob("*.py")}
    assert {name for name, text in sources.items() if "json.dumps" in text} == {
        "logs.py",  # lines of a log, on stderr
        "output.py",
    }
    used = re.findall(r'print_json\(\s*"(\w+)"', "".join(sources.values()))
    assert set(used) == set(KINDS)


def test_object_of_an_unknown_type_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no kind"):
        print_json("thing", {})


def test_rows_on_stdout_are_those_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    print_csv([("1-0", measurement(1)), ("2-0", measurement(3))])
    head, first, second = capsys.readouterr().out.splitlines()
    assert head == ",".join(CSV_COLUMNS)
    assert (first[-4:], second[-4:]) == (",1-0", ",2-0")
    assert '"none of 10 echoes, ""as they say"", was answered"' in second


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "--svg", "x.png"], "'x.png' must end in .svg"),
        (["show", "--svg", "-"], "'-' must end in .svg"),
        (["run", "--csv", "-"], "ptzmesh results --run ID --csv - prints the rows of a run"),
        (["demo", "--csv", "-"], "leave --csv out, or name a file"),
        (["verify", "last", "--csv", "-"], "the one that the run was collected into"),
    ],
)
def test_file_that_cannot_be_what_its_name_says_is_refused_before_anything_is_done(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    said = capsys.readouterr()
    assert (caught.value.code, said.out, len(said.err.splitlines())) == (2, "", 1)
    assert words in said.err


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("ptzmesh no", ["nodes"]),
        ("ptzmesh run --pro", ["--probe"]),
        ("ptzmesh run --probe t", ["tcp", "throughput"]),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completes_what_was_begun(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    shell: str,
    typed: str,
    completed: list[str],
) -> None:
    monkeypatch.setenv("_PTZMESH_COMPLETE", f"{shell}_complete")
    words = typed.split()
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words) - 1))
    with pytest.raises(SystemExit) as caught:
        main([])
    said = capsys.readouterr()
    assert caught.value.code == 0
    found = [one for one in re.split(r"[\s,]", said.out) if one]
    assert [one for one in completed if one not in found] == []
