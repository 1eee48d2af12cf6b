"""redis-py's parser in C is a matter of speed: where it cannot be imported, all works."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import redis
from forked import START
from programs import environment_of
from samples import file_rows

from integration.nodes import workers
from worker.wire.connection.server import connect

pytestmark = pytest.mark.redis

PARSER = "from redis.connection import DefaultParser as it; print(it.__name__)"
TESTS = Path(__file__).parents[1]


@pytest.fixture
def without(redis_url: str, tmp_path: Path) -> Mapping[str, str]:
    """An environment in which hiredis cannot be imported."""
    (tmp_path / "hiredis.py").write_text("raise ImportError('made for another processor')\n")
    return environment_of(redis_url, PYTHONPATH=str(tmp_path))


def output(env: Mapping[str, str], *argv: str) -> str:
    """Give what a program says that must not fail."""
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_in_use_where_it_can_be_imported(
    connection: redis.Redis, without: Mapping[str, str]
) -> None:
    assert "Hiredis" in output(environment_of("unix:///none"), sys.executable, "-c", PARSER)
    assert "Hiredis" not in output(without, sys.executable, "-c", PARSER)


def test_pairs_are_measured_followed_and_collected_without_it(
    redis_url: str, without: Mapping[str, str], tmp_path: Path
) -> None:
    with (
        connect(redis_url) as opened,
        workers(redis_url, opened, tmp_path, ["a", "b"], env=without, alone=True),
    ):
        ask = ["run", "--count", "3", "--probe", "ping", "--probe", "tcp"]
        output(without, *START, *ask, "--csv", str(tmp_path / "run.csv"))
        output(without, *START, "collect", "--csv", str(tmp_path / "all.csv"))
    whole, collected = file_rows(tmp_path / "run.csv"), file_rows(tmp_path / "all.csv")
    assert len(whole) == 4
    assert sorted(row[:-1] for row in collected) == sorted(row[:-1] for row in whole)


def test_what_is_relied_on_of_connections_holds_without_it(
    without: Mapping[str, str], server_binary: Path
) -> None:
    files = [
        str(TESTS / "integration" / name) for name in ("test_usage.py", "test_redis_trouble.py")
    ]
    output(without, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *files)
