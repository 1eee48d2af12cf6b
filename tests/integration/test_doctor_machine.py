"""`ptzmesh doctor` on the machine of a node: its folder, its outbox, its iperf3, its heartbeat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest
import redis

from integration.doctor_calls import Said, beat, doctor

pytestmark = pytest.mark.redis
#: Says a version, and does what the true one does.
IPERF3 = f"""#!/bin/sh
[ "$1" = --version ] || exec {which("iperf3")} "$@"
echo 'iperf {{}} (cJSON 1.7.15)'
"""


def test_a_state_folder_that_cannot_be_written_fails(redis_url: str, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    said = doctor(redis_url, "--name", "a", "--state-dir", str(in_the_way / "state"))
    assert (said.code, said["state folder"]["status"]) == (2, "fail")
    read_only = doctor(redis_url, "--name", "a", "--state-dir", "/proc/ptzmesh")
    assert read_only["state folder"]["status"] == "fail"
    for found in (said, read_only):
        # Nothing that a right or a disk would change.
        assert found["state folder"]["fix"].startswith("say another --state-dir than ")


@pytest.mark.parametrize(
    ("mount", "advice"),
    [("-t tmpfs -o ro none", "its file system is read-only"), ("-t tmpfs -o size=4k none", "make")],
)
def test_a_state_folder_on_a_disk_that_is_full_or_read_only_says_which(
    redis_url: str, tmp_path: Path, mount: str, advice: str
) -> None:
    if os.geteuid():
        pytest.skip("mounting needs root")
    folder, script = tmp_path / "disk", Path(__file__).parent / "state_folder.py"
    folder.mkdir()
    fill = f"head -c 4096 /dev/zero > {folder}/full 2>/dev/null"
    inside = f"mount {mount} {folder} && {{ {fill} || true; }} && exec {sys.executable} {script}"
    argv = ["unshare", "--mount", "sh", "-c", f"{inside} {folder}/state"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    status, fix = json.loads(done.stdout)
    assert status == "fail"
    assert fix.startswith(advice)
    assert "; or say another --state-dir" in fix


def test_results_that_wait_on_this_disk_are_told(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "a.outbox").write_bytes(b"x" * 5000)
    said = doctor(redis_url, "--name", "a", "--state-dir", str(tmp_path))
    assert said["outbox"]["values"]["outbox_bytes"] == 5000
    assert said["outbox"]["status"] == "warn"


@pytest.mark.parametrize(
    ("version", "status"),
    [(None, "fail"), ("3.6", "fail"), ("3.7", "ok"), ("3.15", "ok"), ("3.18", "warn"),
     ("3.21", "ok")],
)  # fmt: skip
def test_the_version_of_iperf3_on_path_is_judged(
    redis_url: str, tmp_path: Path, version: str | None, status: str
) -> None:
    if version is not None:
        program = tmp_path / "iperf3"
        program.write_text(IPERF3.format(version))
        program.chmod(0o755)
    said = doctor(redis_url, "--name", "a", "--state-dir", str(tmp_path), PATH=str(tmp_path))
    assert said["iperf3"]["status"] == status
    assert said["iperf3"]["values"]["on_path"] == version


def test_a_worker_that_does_not_know_the_iperf3_on_this_path_has_another_path(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    beat(connection, "a", iperf3="", icmp="none")
    program = tmp_path / "iperf3"
    program.write_text(IPERF3.format("3.12"))
    program.chmod(0o755)
    said = doctor(redis_url, "--name", "a", "--state-dir", str(tmp_path), PATH=str(tmp_path))
    assert said["iperf3"]["status"] == "fail"
    assert "the worker looks on its own PATH" in said["iperf3"]["fix"]
    assert "restart" not in said["iperf3"]["fix"]
    assert said["icmp"]["status"] == "fail"
    assert "net.ipv4.ping_group_range" in said["icmp"]["fix"]


def test_a_node_that_was_started_here_and_is_silent_fails(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    (tmp_path / "a.owner").write_text("token")
    folder = ("--state-dir", str(tmp_path))
    config = tmp_path / "ptzmesh.toml"
    config.write_text(f'[worker]\nname = "a"\nstate_dir = "{tmp_path}"\n')
    environment = {**os.environ, "PTZMESH_REDIS_URL": redis_url}
    argv = [sys.executable, "-m", "coordinator.cli", "--config", str(config), "doctor", "--json"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert Said(done)["own heartbeat"]["message"] == "a was never heard"  # named as the worker is
    beat(connection, "a", silent_s=99)
    assert doctor(redis_url, "--name", "a", *folder)["own heartbeat"]["status"] == "fail"
    beat(connection, "a", stopped="1")
    assert doctor(redis_url, "--name", "a", *folder)["own heartbeat"]["status"] == "warn"
