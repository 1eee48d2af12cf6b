"""The program that probes a folder: its bytes, its clock, and what it may say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worker.model.measurement import Outcome
from worker.monitor import probe_mount, process
from worker.monitor.mounts import mount_probe, probing


def test_a_folder_is_probed_within_its_bytes_and_left_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "BULK_MAX_S", 60.0)
    found = probe_mount(str(tmp_path), bulk_bytes=300_000, deadline_s=300.0, mount_only=False)
    assert found.outcome is Outcome.OK
    names = ("create_ms", "write_ms", "fsync_ms", "read_ms", "delete_ms")
    assert all(found.detail.more[name] >= 0 for name in names)
    assert sum(found.detail.more[name] for name in names) < found.detail.more["elapsed_s"] * 1000
    assert found.detail.more["bytes_written"] == found.detail.more["bytes_read"] == 300_000
    assert found.throughput_mbps == found.detail.more["read_mbps"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_mount_is_not_written_to(tmp_path: Path) -> None:
    assert probe_mount(str(tmp_path)).outcome is Outcome.UNREACHABLE
    assert probe_mount(str(tmp_path / "none"), mount_only=False).outcome is Outcome.UNREACHABLE


def test_two_probes_of_a_node_keep_apart_and_a_stale_file_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTZMESH_NODE", "cam-7")
    monkeypatch.setattr(process, "_process", process._Process())  # it has read its settings
    left = tmp_path / ".ptzmesh-probe-cam-7"
    left.write_text("x")
    busy = probe_mount(str(tmp_path), bulk_bytes=0, mount_only=False)
    assert (busy.outcome, left.exists()) == (Outcome.TARGET_BUSY, True)
    os.utime(left, (time.time() - 3600,) * 2)
    assert probe_mount(str(tmp_path), bulk_bytes=0, mount_only=False).outcome is Outcome.OK
    assert not left.exists()


@pytest.mark.parametrize(
    ("program", "deadline_s", "outcome"),
    [
        ("import signal, time; signal.setitimer(0, 0.1); time.sleep(900)", 300, Outcome.TIMEOUT),
        ("print('no json')", 300, Outcome.BAD_REPLY),
        ("print('[1]')", 300, Outcome.BAD_REPLY),
        ("import time; time.sleep(900)", 0.2, Outcome.TIMEOUT),
    ],
)
def test_a_probe_that_hangs_or_babbles_is_a_finding(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    deadline_s: float,
    outcome: Outcome,
) -> None:
    popen, argv = subprocess.Popen, [sys.executable, "-c", program]
    monkeypatch.setattr(subprocess, "Popen", lambda _argv, **options: popen(argv, **options))
    monkeypatch.setattr(probing, "START_S", 0.1)
    assert probe_mount(str(tmp_path), deadline_s=deadline_s).outcome is outcome


def test_the_probes_own_clock_ends_it(tmp_path: Path) -> None:
    argv = [sys.executable, "-I", "-S", mount_probe.__file__, str(tmp_path), "--anywhere"]
    argv += ["--bulk-bytes", str(10**12), "--max-s", "60", "--deadline-s", "0.2"]
    assert subprocess.run(argv, check=False, timeout=30).returncode == -14
