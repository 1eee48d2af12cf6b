"""What a person types first: nothing, a question, a wrong name; the same in every click."""

from __future__ import annotations

import pytest

from coordinator.cli import main
from coordinator.cli.group import COMMANDS, load
from worker import __version__


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    said = capsys.readouterr()
    return caught.value.code, said.out, said.err


def test_nothing_at_all_is_answered_with_the_help_as_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = typed(capsys)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ptzmesh")
    assert all(f"\n  {name} " in err for name in COMMANDS)


def test_line_of_a_command_is_the_beginning_of_its_own_help() -> None:
    begin = {name: load(name).get_short_help_str(1000) for name in COMMANDS}
    assert begin == COMMANDS
    assert list(begin) == list(COMMANDS)


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_begins_with_the_usage_and_what_it_is_for(
    capsys: pytest.CaptureFixture[str], command: list[str], flag: str
) -> None:
    code, out, err = typed(capsys, *command, flag)
    assert (code, err) == (0, "")
    usage, _, purpose, *_ = out.splitlines()
    assert usage.startswith(" ".join(["Usage: ptzmesh", *command]))
    assert len(purpose.split()) > 3


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_version_is_told_wherever_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert typed(capsys, *command, "--version") == (0, f"ptzmesh, version {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nodse"], ["no command 'nodse'", "did you mean nodes? see: ptzmesh --help"]),
        (["Run"], ["did you mean run"]),
        (["version"], ["did you mean --version"]),
        (["help"], ["did you mean --help"]),
        (["frobnicate"], ["no command 'frobnicate'; see: ptzmesh --help"]),
        (["--frobnicate"], ["--frobnicate", "see: ptzmesh --help"]),
        (["run", "--cuont", "3"], ["--cuont", "--count", "see: ptzmesh run --help"]),
        (["run", "cam-1"], ["unexpected extra argument (cam-1)", "see: ptzmesh run --help"]),
        (["verify"], ["Missing argument 'RUN'", "see: ptzmesh verify --help"]),
        (["test"], ["Missing argument 'TARGET'", "see: ptzmesh test --help"]),
    ],
)
def test_what_cannot_be_meant_is_one_line_that_says_what_can(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    code, out, err = typed(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert [word for word in words if word not in err] == []
