"""`ptzmesh lockers`: what a person and a program read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import redis
from click.testing import CliRunner

from coordinator.cli.lockers import lockers
from worker.model.measurement import Outcome
from worker.monitor.lockers.notes import note
from worker.monitor.records.record import LOCKER, record

pytestmark = pytest.mark.redis


def run(redis_url: str, *words: str) -> str:
    done = CliRunner().invoke(lockers, ["--redis", redis_url, *words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


#: For half a minute, ten hours are left.
EXPIRE_S = 36_029


def hold(connection: redis.Redis, locker: int, identifier: str, *, ours: bool) -> None:
    connection.set(f"file_lockers:{locker}", identifier, ex=EXPIRE_S)
    if not ours:
        return
    detail = {
        "operation": "acquire", "prefix": "file_lockers", "locker": locker, "pid": 42,
        "identifier": identifier, "lockers": 4, "expire_s": EXPIRE_S, "contended": 2,
        "elapsed_s": 7.25,
    }  # fmt: skip
    made = record(probe=LOCKER, target=f"file_lockers:{locker}", outcome=Outcome.OK, detail=detail)
    note(connection, [replace(made, source="cam-7")])


def test_a_person_sees_holders_waiters_and_slow_operations(
    connection: redis.Redis, redis_url: str
) -> None:
    hold(connection, 0, "mine", ours=True)
    hold(connection, 3, "theirs", ours=False)
    text = run(redis_url)
    assert "file_lockers: 2 held, 98 of 100 free" in text
    assert "10 h" in text
    assert "cam-7" in text
    assert "holder ?" in text
    assert "7.2 s" in text or "7.3 s" in text


def test_json_is_one_document(connection: redis.Redis, redis_url: str) -> None:
    hold(connection, 0, "mine", ours=True)
    hold(connection, 3, "theirs", ours=False)
    found = json.loads(run(redis_url, "--json", "--count", "4"))
    assert (found["prefix"], found["looked_at"]) == ("file_lockers", 4)
    mine, theirs = found["lockers"]
    assert (mine["locker"], mine["node"], mine["pid"]) == (0, "cam-7", 42)
    assert 0 <= mine["held_s"] < 60
    assert 35_000 < mine["left_s"] <= EXPIRE_S
    assert (theirs["identifier"], theirs["node"], theirs["held_s"]) == ("theirs", None, None)
    assert found["waiters"][0]["node"] == "cam-7"
    assert found["slowest"][0]["elapsed_s"] == 7.25


def test_no_lockers_is_no_error(redis_url: str) -> None:
    assert "0 held" in run(redis_url, "--prefix", "other")


def test_bad_count_is_refused(redis_url: str) -> None:
    assert CliRunner().invoke(lockers, ["--redis", redis_url, "--count", "0"]).exit_code == 2


def test_looking_changes_nothing(connection: redis.Redis, redis_url: str) -> None:
    hold(connection, 3, "theirs", ours=False)
    before = sorted(connection.keys())
    run(redis_url)
    assert sorted(connection.keys()) == before
