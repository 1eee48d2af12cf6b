"""What a node finds out about itself while it runs: tools, its settings file."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from coordinator.cli.group import load
from coordinator.cli.settings import config
from coordinator.cli.settings import reread as module
from coordinator.cli.settings.config import read_config
from coordinator.cli.settings.reread import Reread
from worker.identity.context import NodeContext
from worker.model.errors import ConfigError
from worker.model.policy import Policy
from worker.node.registration import facts
from worker.node.registration.facts import Facts, NoFile, Said
from worker.wire.connection import server
from worker.wire.node_record import Node


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


RECORD = Node(name="a", address="127.0.0.1")


def asked(folder: Path) -> int:
    path = folder / "asked"
    return len(path.read_text().split()) if path.exists() else 0


def new_facts() -> Facts:
    return Facts(said=Said(labels={}, policy=Policy()), reread=NoFile())


def version_of(found: Facts) -> str:
    found.look()
    return found.in_record(RECORD).iperf3


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


def reread_of(path: Path, arguments: Sequence[str] = (), *, is_given: bool = True) -> Reread:
    """Give what a worker that was started with this file and these arguments asks again."""
    command = load("worker")
    root = click.Context(click.Group("ptzmesh"), info_name="ptzmesh")
    root.params["config"] = str(path) if is_given else None
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


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is in the middle of being written."""
    monkeypatch.setattr(module, "SETTLED_S", 0.0)


@pytest.mark.usefixtures("at_once")
def test_settings_file_is_read_again_when_it_changes_and_the_command_line_still_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTZMESH_WORKER_MAX_DURATION", "7s")
    path = tmp_path / "ptzmesh.toml"
    path.write_text('[worker]\nlabel = ["site=roof"]\nmax_bitrate = 20\n')
    reread = reread_of(path, ["--ports", "5301-5302"])
    assert reread() is None
    rewrite(
        path,
        'redis = "redis://h2"\n[worker]\nlabel = ["site=yard"]\nports = "6000-6001"\n'
        'hours = ["00:00-06:00"]\naddress = "10.0.0.9"\n',
    )
    said = reread()
    assert said is not None
    assert said.labels == {"site": "yard"}
    assert said.policy.max_bitrate_mbps is None
    assert said.policy.max_duration_s == 7
    assert said.policy.ports == (5301, 5302)
    assert [str(hours) for hours in said.policy.hours] == ["00:00-06:00"]
    assert said.later == ("address", "redis_url")
    assert reread() is None


def test_half_of_a_file_that_is_being_written_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ptzmesh.toml"
    path.write_text("[worker]\nmax_bitrate = 20\n")
    reread, now = reread_of(path), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with path.open("w") as file:
        file.write("[worker]\n")
        file.flush()
        assert reread() is None
        now[0] += module.SETTLED_S - 0.1
        assert reread() is None
        file.write("max_bitrate = 5\n")
    assert reread() is None
    now[0] += module.SETTLED_S
    said = reread()
    assert said is not None
    assert said.policy.max_bitrate_mbps == 5


def test_file_that_is_written_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: None
) -> None:
    path = tmp_path / "ptzmesh.toml"
    path.write_text("[worker]\nmax_bitrate = 20\n")
    reread, read = reread_of(path), read_config
    rewrite(path, "[worker]\n")

    def meanwhile(*arguments: Any) -> dict[str, Any]:
        found = read(*arguments)
        rewrite(path, "[worker]\nmax_bitrate = 5\n")
        monkeypatch.setattr(module, "read_config", read)
        return found

    monkeypatch.setattr(module, "read_config", meanwhile)
    assert reread() is None
    said = reread()
    assert said is not None
    assert said.policy.max_bitrate_mbps == 5


WRONG = [
    "[worker\n",
    "[worker]\nno_such = 1\n",
    '[worker]\nmax_bitrate = "fast"\n',
    '[worker]\nports = "80"\n',
    '[worker]\nlabel = ["roof"]\n',
    "",
    None,
]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("is_given", [True, False])
def test_wrong_settings_are_told_once_and_what_was_said_before_holds_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str | None, is_given: bool
) -> None:
    path = tmp_path / "ptzmesh.toml"
    for one in (module, config):
        monkeypatch.setattr(one, "DEFAULT_CONFIG", path)
    path.write_text('[worker]\nlabel = ["site=roof"]\n')
    before = Said(labels={"site": "roof"}, policy=Policy())
    found = Facts(said=before, reread=reread_of(path, is_given=is_given))
    assert not found.look_at_settings()
    if wrong is None:
        path.unlink()
    else:
        rewrite(path, wrong)
    assert found.look_at_settings()
    assert str(path) in found.complaint or "must" in found.complaint
    assert "\n" not in found.complaint
    assert found.in_record(RECORD).settings_fault == found.complaint
    assert not found.look_at_settings()
    assert found.said == before
    rewrite(path, '[worker]\nlabel = ["site=yard"]\n')
    assert found.look_at_settings()
    assert (found.said.labels, found.complaint) == ({"site": "yard"}, "")


@pytest.mark.usefixtures("at_once")
def test_file_that_keeps_its_size_and_the_time_of_its_original_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ptzmesh.toml"
    path.write_text("[worker]\nmax_bitrate = 20\n")
    reread, before = reread_of(path), path.stat()
    path.write_text("[worker]\nmax_bitrate = 10\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    said = reread()
    assert said is not None
    assert said.policy.max_bitrate_mbps == 10


@pytest.mark.usefixtures("at_once")
def test_what_is_wrong_is_a_fault_of_settings(tmp_path: Path) -> None:
    path = tmp_path / "ptzmesh.toml"
    path.write_text("[worker]\n")
    reread = reread_of(path)
    rewrite(path, '[worker]\nlink = ["cell"]\n')
    with pytest.raises(ConfigError, match="cell-7=1"):
        reread()


def job_of(found: Facts, tmp_path: Path) -> Callable[..., NodeContext]:
    """Give what looks as a job does, which is forked from a process as old as the worker."""
    worker = copy.copy(found)
    worker.reread = copy.copy(found.reread)
    context = NodeContext(
        name="a",
        address="10.0.0.1",
        redis_url="",
        outbox_path=tmp_path,
        policy=found.said.policy,
        iperf3=found.iperf3,
        should_stop=lambda: False,
    )

    def begin(*, tests: bool = True) -> NodeContext:
        horse = copy.copy(worker)
        horse.reread = copy.copy(worker.reread)
        nowhere = server.connect("unix:///nowhere", retries=0)
        return horse.renewed(context, nowhere, tests)

    return begin


@pytest.mark.usefixtures("at_once", "folder")
def test_job_goes_by_the_last_valid_settings_whoever_has_read_them(tmp_path: Path) -> None:
    path = tmp_path / "ptzmesh.toml"
    path.write_text("[worker]\nmax_bitrate = 20\n")
    first = Said(labels={}, policy=Policy(max_bitrate_mbps=20))
    found = Facts(said=first, reread=reread_of(path), address="10.0.0.1")
    begin = job_of(found, tmp_path)
    assert begin().policy.max_bitrate_mbps == 20

    rewrite(path, "[worker]\nmax_bitrate = 10\n")  # which the supervisor has not seen
    assert begin().policy.max_bitrate_mbps == 10
    found.look_at_settings()
    found.address = "10.0.0.2"
    found.share()
    assert (begin().policy.max_bitrate_mbps, begin().address) == (10, "10.0.0.2")

    rewrite(path, "[worker]\nmax_bitrate = \n")
    assert begin().policy.max_bitrate_mbps == 10
    found.look_at_settings()
    found.share()
    assert begin().policy.max_bitrate_mbps == 10


@pytest.mark.usefixtures("folder")
def test_job_waits_for_a_file_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ptzmesh.toml"
    path.write_text("[worker]\nmax_bitrate = 20\n")
    first = Said(labels={}, policy=Policy(max_bitrate_mbps=20))
    begin = job_of(Facts(said=first, reread=reread_of(path)), tmp_path)
    rest, sleep = ["max_bitrate = 5\n"], time.sleep

    def meanwhile(seconds: float) -> None:
        with path.open("a") as file:
            file.write("".join(rest))
        rest.clear()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", meanwhile)
    monkeypatch.setattr(module, "SETTLED_S", 0.2)
    path.write_text("[worker]\n")
    assert begin().policy.max_bitrate_mbps == 5


def test_a_look_starts_no_process(folder: Path) -> None:
    put_iperf3(folder, "3.12")
    found = new_facts()
    found.look()
    before = os.times()
    for _ in range(200):
        found.look()
        found.in_record(RECORD)
    after = os.times()
    assert asked(folder) == 1
    assert (
        after.children_user + after.children_system == before.children_user + before.children_system
    )


def test_only_a_job_that_tests_asks_an_iperf3_that_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not answer takes seconds, in which no echo leaves."""
    program, asked = tmp_path / "iperf3", tmp_path / "asked"
    program.write_text(f"#!/bin/sh\n/bin/touch {asked}\n")
    program.chmod(0o755)
    found = Facts(said=Said(labels={}, policy=Policy()), reread=NoFile(), address="10.0.0.1")
    monkeypatch.setenv("PATH", str(tmp_path))
    begin = job_of(found, tmp_path)
    begin(tests=False)
    assert not asked.exists()
    begin(tests=True)
    assert asked.exists()
