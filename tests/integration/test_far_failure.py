"""What an iperf3 server that fails says of itself reaches the row of who asked, and doctor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis

from integration.nodes import alive, cli, eventually, start_worker
from worker.probes.iperf3 import find_iperf3

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(find_iperf3() is None, reason="no iperf3"),
]

#: Nobody can make a file there, not even root.
NO_FOLDER = "/proc"


def test_a_server_without_a_folder_for_its_files_is_told_by_its_own_node(
    redis_url: str, connection: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = [start_worker(redis_url, "a", "127.0.0.1", tmp_path)]
    monkeypatch.setenv("TMPDIR", NO_FOLDER)
    started.append(start_worker(redis_url, "b", "127.0.0.2", tmp_path))
    try:
        eventually(lambda: alive(connection) == ["a", "b"], "both are there")
        said = cli(redis_url, "run", "--json", "--probe", "throughput", "--duration", "1")
        doctor = cli(redis_url, "doctor", "--json", "--name", "b", "--state-dir", str(tmp_path))
    finally:
        for process in started:
            process.terminate()
            process.wait(60)
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    errors = {row["source"]: (row["outcome"], row["error"]) for row in rows if "outcome" in row}
    folder = "must be one that it can write"
    # Where b answers, and where it asks: it is the same folder of the same node.
    outcome, error = errors["a"]
    assert (outcome, folder in error) == ("bad_reply", True), error
    assert error.startswith("b: its iperf3 server failed: unable to create a new stream")
    outcome, error = errors["b"]
    assert (outcome, folder in error) == ("bad_reply", True), error
    served = (tmp_path / "b.log").read_text()
    assert "outcome=bad_reply its iperf3 server failed" in served
    assert "was told to stop" not in served + (tmp_path / "a.log").read_text()
    checks = {one["check"]: one for one in map(json.loads, doctor.stdout.splitlines())}
    assert checks["iperf3 test"]["status"] == "fail"
    assert folder in checks["iperf3 test"]["mend"]
