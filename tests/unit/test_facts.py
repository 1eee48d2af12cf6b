"""What a node finds out about itself while it runs: tools, its settings file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from coordinator.cli import load
from coordinator.cli.options import read_config
from coordinator.cli.reread import Reread
from worker import facts
from worker.errors import ConfigError
from worker.facts import Facts, Said
from worker.policy import Policy


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    found = tmp_path / "bin"
    found.mkdir()
    monkeypatch.setenv("PATH", str(found))
    return found


def put_iperf3(folder: Path, version: str, more: str = "") -> None:
    """Put an iperf3 there, as an installer does, that says its version and that it was asked."""
    new = folder / "new"
    new.write_text(f"#!/bin/sh\necho x >> {folder}/asked\n{more}\necho iperf {version}\n")
    new.chmod(0o755)
    new.rename(folder / "iperf3")


def asked(folder: Path) -> int:
    path = folder / "asked"
    return len(path.read_text().split()) if path.exists() else 0


def new_facts() -> Facts:
    return Facts(said=Said(labels={}, policy=Policy()), reread=lambda: None)


def version_of(found: Facts) -> str:
    found.look()
    return found.fields("127.0.0.1")["iperf3"]


def test_iperf3_comes_and_goes_and_is_asked_once_for_each_change(folder: Path) -> None:
    found = new_facts()
    assert version_of(found) == ""
    put_iperf3(folder, "3.12")
    assert [version_of(found) for _ in range(5)] == ["3.12"] * 5
    assert asked(folder) == 1
    put_iperf3(folder, "3.18")
    assert [version_of(found) for _ in range(5)] == ["3.18"] * 5
    assert asked(folder) == 2
    (folder / "iperf3").unlink()
    assert version_of(found) == ""
    assert "not on PATH" in found.iperf3.fault


def test_iperf3_that_cannot_be_started_is_none_and_one_that_hangs_is_asked_again_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "iperf3").write_text("no program")
    (folder / "iperf3").chmod(0o755)
    found = new_facts()
    assert version_of(found) == ""
    monkeypatch.setattr(facts, "ANSWER_S", 0.2)
    put_iperf3(folder, "3.12", "[ -e go ] || while :; do :; done".replace("go", f"{folder}/go"))
    assert [version_of(found) for _ in range(3)] == [""] * 3
    (folder / "go").touch()
    monkeypatch.setattr(facts, "ANSWER_S", 30)
    found._ask_at = 0.0
    assert version_of(found) == "3.12"


def reread_of(path: Path, arguments: Sequence[str] = ()) -> Reread:
    """Give what a worker that was started with this file and these arguments asks again."""
    command = load("worker")
    root = click.Context(click.Group("ptzmesh"), info_name="ptzmesh")
    root.params["config"] = str(path)
    own = read_config(str(path), {"worker": _entries}).get("worker", {})
    context = command.make_context("worker", list(arguments), root, default_map=own)
    return Reread(context, arguments)


def _entries() -> dict[str, str]:
    from coordinator.cli.group import parameters

    return parameters("worker")


def rewrite(path: Path, text: str) -> None:
    """Write a file anew, as editors do."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def test_settings_file_is_read_again_when_it_changes_and_the_command_line_still_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTZMESH_WORKER_MAX_DURATION", "7s")
    path = tmp_path / "ptzmesh.toml"
    path.write_text('[worker]\nlabel = ["site=roof"]\nmax_bitrate = 20\n')
    reread = reread_of(path, ["--ports", "5301-5302"])
    assert reread() is None
    rewrite(path, '[worker]\nlabel = ["site=yard"]\nports = "6000-6001"\nhours = ["00:00-06:00"]\n')
    said = reread()
    assert said is not None
    assert said.labels == {"site": "yard"}
    assert said.policy.max_bitrate_mbps is None
    assert said.policy.max_duration_s == 7
    assert said.policy.ports == (5301, 5302)
    assert [str(hours) for hours in said.policy.hours] == ["00:00-06:00"]
    assert reread() is None


@pytest.mark.parametrize(
    "wrong",
    [
        "[worker\n",
        "[worker]\nno_such = 1\n",
        '[worker]\nmax_bitrate = "fast"\n',
        '[worker]\nports = "80"\n',
        '[worker]\nlabel = ["roof"]\n',
        None,
    ],
)
def test_wrong_settings_are_told_once_and_what_was_said_before_holds_on(
    tmp_path: Path, wrong: str | None
) -> None:
    path = tmp_path / "ptzmesh.toml"
    path.write_text('[worker]\nlabel = ["site=roof"]\n')
    before = Said(labels={"site": "roof"}, policy=Policy())
    found = Facts(said=before, reread=reread_of(path))
    assert found.look() is None
    if wrong is None:
        path.unlink()
    else:
        rewrite(path, wrong)
    told = found.look()
    assert told is not None
    assert "\n" not in told
    assert found.look() is None
    assert found.said == before
    rewrite(path, '[worker]\nlabel = ["site=yard"]\n')
    assert found.look() is None
    assert found.said.labels == {"site": "yard"}


def test_what_is_wrong_is_a_fault_of_settings(tmp_path: Path) -> None:
    path = tmp_path / "ptzmesh.toml"
    path.write_text("")
    reread = reread_of(path)
    rewrite(path, '[worker]\nlink = ["cell"]\n')
    with pytest.raises(ConfigError, match="cell-7=1"):
        reread()


def test_a_look_starts_no_process(folder: Path) -> None:
    put_iperf3(folder, "3.12")
    found = new_facts()
    found.look()
    before = os.times()
    for _ in range(200):
        found.look()
        found.fields("127.0.0.1")
    after = os.times()
    assert asked(folder) == 1
    assert (
        after.children_user + after.children_system == before.children_user + before.children_system
    )
