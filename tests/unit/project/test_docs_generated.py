"""What the pages list is what the code has: settings, and the names under which they are read."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from samples import docs_script

from coordinator.cli.group import COMMANDS, load, parameters
from coordinator.cli.settings.config import FOR_ALL, read_config

ROOT = Path(__file__).parents[3]


def own_options() -> list[tuple[str, click.Option]]:
    return [
        (command, option)
        for command in COMMANDS
        for option in load(command).params
        if isinstance(option, click.Option) and option.name not in FOR_ALL.values()
    ]


def test_page_of_the_settings_is_what_the_commands_have() -> None:
    module = docs_script("make_settings")
    assert module.PAGE.read_text() == module.page(), "run: python docs/make_settings.py"


@pytest.mark.parametrize(("command", "option"), own_options())
def test_entry_that_is_called_like_the_flag_reaches_the_option(
    command: str, option: click.Option, tmp_path: Path
) -> None:
    name = max(option.opts, key=len).lstrip("-").replace("-", "_")
    path = tmp_path / "ptzmesh.toml"
    value = [7] if option.multiple or option.nargs != 1 else 7
    path.write_text(f"[{command}]\n{name} = {value}\n")
    settings = read_config(str(path), {command: lambda: parameters(command)})
    assert settings == {command: {option.name: value}}


@pytest.mark.parametrize(("command", "option"), own_options())
def test_variable_that_is_called_like_the_flag_is_read(
    command: str, option: click.Option, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = max(option.opts, key=len).lstrip("-").replace("-", "_")
    variable = f"PTZMESH_{command}_{name}".upper()
    if command == "doctor" and name in ("name", "state_dir"):
        variable = f"PTZMESH_WORKER_{name}".upper()  # those of the worker that it looks at
    monkeypatch.delenv("PTZMESH_NODE", raising=False)
    monkeypatch.setenv(variable, "7")
    assert option.resolve_envvar_value(click.Context(load(command))) == "7"
