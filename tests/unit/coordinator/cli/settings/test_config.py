"""Flag over environment over file over default; what nothing reads is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from coordinator.cli import main
from coordinator.cli.group import COMMANDS, cli, load, parameters
from coordinator.cli.settings.config import read_config
from worker.model.errors import ConfigError

KNOWN = {name: (lambda name=name: parameters(name)) for name in COMMANDS}


def read(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "ptzmesh.toml"
    path.write_text(text)
    return read_config(str(path), KNOWN)


def count_of_run(default_map: dict[str, Any], *flags: str) -> int:
    parent = click.Context(cli, default_map=default_map, auto_envvar_prefix="PTZMESH")
    with load("run").make_context("run", list(flags), parent=parent) as context:
        return int(context.params["count"])


def test_default_is_used_when_nothing_is_said() -> None:
    assert count_of_run({}) == 10


def test_file_wins_over_default_environment_over_file_flag_over_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read(tmp_path, "[run]\ncount = 20\n")
    assert count_of_run(settings) == 20
    monkeypatch.setenv("PTZMESH_RUN_COUNT", "30")
    assert count_of_run(settings) == 30
    assert count_of_run(settings, "--count", "40") == 40


def test_redis_at_the_top_is_for_every_command(tmp_path: Path) -> None:
    settings = read(tmp_path, 'redis = "redis://hub"\n[nodes]\nredis = "redis://other"\n')
    assert settings["run"]["redis_url"] == "redis://hub"
    assert settings["nodes"]["redis_url"] == "redis://other"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[run]\ncuont = 20\n", "cuont"),
        ("[rum]\ncount = 20\n", "rum"),
        ("run = 3\n", "must be a table"),
        ("[run\n", "not TOML"),
    ],
)
def test_what_nothing_reads_is_refused(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        read(tmp_path, text)


def test_value_of_the_wrong_type_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ptzmesh.toml"
    path.write_text('[run]\ncount = "many"\n')
    with pytest.raises(SystemExit) as caught:
        main(["--config", str(path), "run"])
    assert caught.value.code == 2
    assert "many" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_says_what_its_options_are(name: str) -> None:
    command = load(name)
    assert command.help
    assert all(one.help for one in command.params if isinstance(one, click.Option))
