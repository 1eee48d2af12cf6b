"""What an iperf3 server that fails says of itself reaches the row of who asked, and doctor."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from programs import start_worker
from waiting import wait_until

from integration.nodes import alive, cli
from worker.probes.iperf3.tool import find_iperf3

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(bool(find_iperf3().fault), reason="no iperf3"),
]

#: Nobody can make a file there, not even root.
NO_FOLDER = "/proc"
FAILED = r"{}: its iperf3 server failed, exit code \d+: \w.* must be one that it can write"


@contextmanager
def full_folder(place: Path) -> Iterator[str]:
    """A folder on a file system without room; where this user may mount none, one of no files."""
    if os.geteuid() != 0:
        yield NO_FOLDER
        return
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", place], check=True)
    try:
        (place / "all").write_bytes(bytes(4096))
        yield str(place)
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_server_without_a_folder_for_its_files_is_told_by_its_own_node(
    redis_url: str, connection: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full_folder(tmp_path / "full") as full:
        folders = {"a": str(tmp_path), "b": NO_FOLDER, "c": full}
        started = []
        for place, (name, folder) in enumerate(folders.items()):
            monkeypatch.setenv("TMPDIR", folder)
            started.append(start_worker(redis_url, name, f"127.0.0.{place + 1}", tmp_path))
        try:
            wait_until(lambda: alive(connection) == list(folders), "all are there")
            monkeypatch.setenv("TMPDIR", NO_FOLDER)
            options = ("--from", "a,b", "--to", "a,b,c", "--duration", "1")
            said = cli(redis_url, "run", "--json", "--probe", "throughput", *options)
            doctor = cli(redis_url, "doctor", "--json", "--name", "b", "--state-dir", str(tmp_path))
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(60)
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    found = {(one["source"], one["target"]): one for one in rows if "outcome" in one}
    assert {one["outcome"] for one in found.values()} == {"bad_reply"}
    # Where they answer, and where b asks: it is the same folder of the same node.
    for far in "bc":
        assert re.match(FAILED.format(far), found["a", far]["error"]), found["a", far]["error"]
        log = (tmp_path / f"{far}.log").read_text()
        assert "outcome=bad_reply its iperf3 server failed, exit code " in log
    assert "must be one that it can write" in found["b", "a"]["error"]
    assert not any("the node was stopped" in log.read_text() for log in tmp_path.glob("*.log"))
    checks = {one["check"]: one for one in map(json.loads, doctor.stdout.splitlines())}
    assert checks["iperf3 test"]["status"] == "fail"
    assert "must be one that it can write" in checks["iperf3 test"]["fix"]
