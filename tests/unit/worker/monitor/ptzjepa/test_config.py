"""The `redis:` section of PTZJEPA's file, as YAML would read it, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.model.errors import ConfigError
from worker.monitor.ptzjepa.config import find_config, read_section, redis_url_from

CONFIG = """\
# PTZJEPA
camera:
  host: 192.168.1.1
redis:            # the hub
  host: 10.0.0.1
  port: 6380   # not the usual one

  # and its password
  password: "pa ss#1/@\\"x"
  locker_expiration: 36000
training:
  host: nowhere
"""


def test_the_section_is_read_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "Config_file.yaml"
    path.write_text(CONFIG)
    assert redis_url_from(path) == "redis://:pa%20ss%231%2F%40%22x@10.0.0.1:6380/0"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis:\n  host: hub\n", {"host": "hub"}),
        ("redis:\r\n  host: hub\r\n", {"host": "hub"}),
        ("redis:\n    host:    'it''s'\n", {"host": "it's"}),
        ("redis:\n  password: a#b\n", {"password": "a#b"}),
        ("redis:\n  password: null\n  port: ~\n  host:\n", {}),
        ("redis:\n  password: # none\n", {}),
        ('redis:\n  password: ""\n', {"password": ""}),
        ("redis_other:\n  host: x\n", {}),
        ("", {}),
        ("redis: {host: x}\n", {}),
    ],
)
def test_forms_of_values(text: str, expected: dict[str, str]) -> None:
    assert read_section(text) == expected


@pytest.mark.parametrize("value", ["[a]", "{a: b}", "&x y", "|", "> ", "!!str x", '"a\\n"', '"a'])
def test_other_forms_are_refused_and_not_guessed(value: str) -> None:
    with pytest.raises(ConfigError, match="not read here"):
        read_section(f"redis:\n  password: {value}\n")


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read_section(f"redis:\n {text}")
    except ConfigError:
        return


@pytest.mark.parametrize("text", ["", "redis:\n  port: 6379\n"])
def test_no_host_is_no_redis(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert redis_url_from(path) is None


def test_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        redis_url_from(tmp_path / "none.yaml")
    (tmp_path / "port.yaml").write_text("redis:\n  host: hub\n  port: many\n")
    with pytest.raises(ConfigError, match="must be a number"):
        redis_url_from(tmp_path / "port.yaml")


def test_the_file_is_found_from_here_or_from_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["/nowhere/main.py"])
    assert find_config() is None
    place = tmp_path / "configs" / "Config_file.yaml"
    place.parent.mkdir()
    place.write_text("")
    assert find_config() is not None
    monkeypatch.chdir("/")
    assert find_config() is None
    monkeypatch.setattr("sys.argv", [str(tmp_path / "main.py")])
    assert find_config() == place
