"""Argument over environment over default, and nothing is refused."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from worker.model.names import valid_name
from worker.monitor.settings import DEFAULT_CSV, load_settings, name_from_host


def test_argument_wins_over_environment_over_default() -> None:
    environ = {"PTZMESH_NODE": "env", "REDIS_URL": "redis://env", "PTZMESH_METRICS_CSV": "/env"}
    asked = load_settings(environ, source="arg", redis_url="redis://arg", csv_path=Path("/arg"))
    assert (asked.source, asked.redis_url, asked.csv_path) == ("arg", "redis://arg", Path("/arg"))
    told = load_settings(environ)
    assert (told.source, told.redis_url, told.csv_path) == ("env", "redis://env", Path("/env"))
    plain = load_settings({})
    assert (plain.redis_url, plain.csv_path) == (None, DEFAULT_CSV)
    assert plain.source == name_from_host(socket.gethostname())


def test_our_redis_variable_wins_over_the_common_one() -> None:
    environ = {"REDIS_URL": "redis://common", "PTZMESH_REDIS_URL": "redis://ours"}
    assert load_settings(environ).redis_url == "redis://ours"


def test_a_name_that_is_none_is_told_and_the_host_name_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert load_settings({"PTZMESH_NODE": "cam 7"}).source == name_from_host(socket.gethostname())
    assert "cam 7" in caplog.text


@pytest.mark.parametrize("host", ["a", "_x_", "ünï", "x" * 300, "a.b.", ""])
def test_any_host_name_makes_a_node_name(host: str) -> None:
    assert valid_name(name_from_host(host))


def test_the_url_is_in_no_repr() -> None:
    assert "secret" not in repr(load_settings({}, redis_url="redis://:secret@hub"))
