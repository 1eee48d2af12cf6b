"""A run that stands still says what it waits for, and that it goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from waiting import wait_until

from integration.nodes import workers
from worker.probes.icmp.engine import icmp_capability
from worker.wire import keyspace

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping"),
]


def test_a_run_whose_results_have_no_room_says_so_once_and_goes_on_when_they_have(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    command = [sys.executable, "-m", "coordinator.cli", "run", "--count", "1"]
    connection.hset(keyspace.LIMITS, "stream_entries", 1)
    with workers(redis_url, connection, tmp_path, ["a", "b", "c"]), said.open("wb") as log:
        run = subprocess.Popen(
            command, env={**os.environ, "PTZMESH_REDIS_URL": redis_url}, stdout=log, stderr=log
        )
        wait_until(lambda: b"waits: the results stream is full" in said.read_bytes(), "it says so")
        connection.hdel(keyspace.LIMITS, "stream_entries")
        assert run.wait(120) == 0
    text = said.read_text()
    assert text.count("waits:") == text.count("goes on") == 1
    assert "ptzmesh collect --list" in " ".join(text.split())
