"""PTZJEPA's loop in miniature, as the page shows it, leaves what the page says it leaves."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from coordinator.embedded import embedded_server
from coordinator.results import results
from worker.model.csv_columns import CSV_COLUMNS
from worker.monitor import read_lockers

pytestmark = pytest.mark.redis

ROOT = Path(__file__).parents[2]
MINIATURE = ROOT / "docs" / "ptzjepa" / "miniature.py"
#: Runs it as it is, but gives its last records more time than a host would at its end.
PATIENTLY = """
import runpy, sys
from worker.monitor import process
process.EXIT_DEADLINE_S = 60.0
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def miniature(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.endswith("REDIS_URL")}
    argv = [sys.executable, "-c", PATIENTLY, str(MINIATURE), "-rm", "lifelong"]
    argv += ["--persistence", str(folder), *words]
    done = subprocess.run(
        argv,
        cwd=folder,
        env={**environment, "PTZMESH_NODE": "cam-7"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def configure(folder: Path, url: str) -> None:
    place, config = urlsplit(url), folder / "configs" / "Config_file.yaml"
    config.parent.mkdir()
    lines = [f"host: {place.hostname}", f"port: {place.port}", f"password: '{place.password}'"]
    config.write_text("\n  ".join(["redis:", *lines, "locker_expiration: 600"]) + "\n")


def test_distributed(server_binary: Path, tmp_path: Path) -> None:
    with embedded_server(tmp_path / "hub", binary=server_binary, unix=False) as server:
        configure(tmp_path, server.url)
        miniature(tmp_path, "-dist", "-dist_ip", "127.0.0.1", "-nm", "--cycles", "3")
        with redis.Redis.from_url(server.url) as connection:
            entries = [measurement for _, measurement in results.read(connection)]
            assert read_lockers(connection).lockers == ()
    with (tmp_path / "network_metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    counts = Counter((m.probe, m.detail.more.get("operation")) for m in entries)
    assert counts["locker", "acquire"] == counts["locker", "release"] == 6
    assert counts["timeit", None] == 9
    assert counts["sshfs", "mount"] == counts["sshfs", "unmount"] == 1
    assert sum(n for (probe, _), n in counts.items() if probe == "ping") >= 1
    assert {m.source for m in entries} == {"cam-7"}
    acquired = [m for m in entries if m.detail.more.get("operation") == "acquire"]
    assert [m.detail.more["activity"] for m in acquired] == ["world_model", "dreamer"] * 3
    assert {m.detail.more.get("cycle") for m in entries} == {None, 1, 2, 3}
    key = [(m.probe, m.started_at, m.target) for m in entries]
    assert len(rows) == len(set(key)) == len(key)


def test_alone_and_without_monitoring_nothing_is_left(tmp_path: Path) -> None:
    miniature(tmp_path, "--cycles", "1")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_and_no_redis_are_log_lines(tmp_path: Path) -> None:
    blocked = tmp_path / "network_metrics.csv"
    blocked.mkdir()
    words = ["-nm", "-nh", "127.0.0.1,no-such-host.invalid", "--cycles", "3"]
    done = miniature(tmp_path, *words, "--network_redis", "redis://127.0.0.1:1/0")
    assert done.stderr.count("cannot be written") == 1
    assert done.stderr.count("does not answer") == 1
    assert done.stderr.count("cycle 3 done") == 1
    assert "Traceback" not in done.stderr
