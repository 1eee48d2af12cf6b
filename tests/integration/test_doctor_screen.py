"""What a person sees of `ptzmesh doctor` and `ptzmesh nodes`, on terminals of several widths."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest
import redis

from integration.doctor_calls import beat

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("columns", ["80", "120"])
def test_every_line_but_a_command_fits_the_terminal(redis_url: str, columns: str) -> None:
    leader, follower = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"PTZMESH_REDIS_URL": redis_url, "COLUMNS": columns, "TERM": "xterm"}
    subprocess.run(
        [sys.executable, "-m", "coordinator.cli", "doctor"],
        env=environment, stdout=follower, stderr=follower, check=True,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while not shown.rstrip().endswith(b"skipped"):
        shown += os.read(leader, 65536)
    os.close(leader)
    assert b"\x1b[32m" in shown  # ok is green, and says so in letters, too
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()
    assert [line for line in plain if len(line) > int(columns) and "->" not in line] == []
    assert any(line.startswith("  ok      eviction") for line in plain)


@pytest.mark.parametrize(("columns", "spared"), [("80", {"version"}), ("140", set())])
def test_a_narrow_terminal_shows_names_whole_and_leaves_columns_out(
    redis_url: str, connection: redis.Redis, columns: str, spared: set[str]
) -> None:
    beat(connection, "camera-on-the-northern-roof", redis_commands_per_s="10.25",
         clock_offset_ms="-3.1", clock_offset_uncertainty_ms="0.2",
         labels='{"site": "roof"}')  # fmt: skip
    leader, follower = pty.openpty()
    environment = {**os.environ, "PTZMESH_REDIS_URL": redis_url, "COLUMNS": columns}
    argv = [sys.executable, "-m", "coordinator.cli", "nodes"]
    subprocess.run(argv, env=environment, stdout=follower, stderr=follower, check=True)
    os.close(follower)
    shown = b""
    while b"roof" not in shown.partition(b"camera")[2]:
        shown += os.read(leader, 65536)
    os.close(leader)
    head, _, row = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()[:3]
    assert "camera-on-the-northern-roof" in row
    assert {"version", "labels"} - set(head.split()) >= spared
    assert "alive" in row
