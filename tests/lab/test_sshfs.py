"""Measured mounts against a real sshd and sshfs between two machines of the lab."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from missing import missing

from lab.commands import run
from lab.conftest import MakeLab
from lab.net import Lab
from lab.node import Node

pytestmark = pytest.mark.lab

TESTS = Path(__file__).parents[1]
PROGRAM = TESTS / "lab" / "sshfs_program.py"
#: A probe is waited for 1 s at most; the rest is a busy machine's. A probe that was left to end by
#: itself would not be `cancelled`.
UNMOUNT_S = 15.0
SSHD_CONFIG = """\
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
PermitRootLogin yes
PasswordAuthentication no
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
"""


@pytest.fixture(autouse=True)
def _tools() -> None:
    lacking = [tool for tool in ("sshfs", "ssh-keygen", "fusermount") if shutil.which(tool) is None]
    lacking += [path for path in ("/usr/sbin/sshd", "/dev/fuse") if not Path(path).exists()]
    if lacking:
        missing(f"mounts need {', '.join(lacking)}")


class Mounts:
    """Two machines: the server has a folder and an sshd, the node mounts the folder."""

    def __init__(self, made: Lab, folder: Path) -> None:
        self.lab, self.folder = made, folder
        self.node, self.server = made.nodes
        self.remote, self.local = folder / "remote", folder / "local"
        self.remote.mkdir()
        for name in ("host_key", "key"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)])
        config = folder / "sshd_config"
        config.write_text(SSHD_CONFIG.format(folder=folder))
        Path("/run/sshd").mkdir(exist_ok=True)
        self.sshd = self.server.start(
            ["/usr/sbin/sshd", "-D", "-e", "-f", str(config)], log=folder / "sshd.log"
        )
        self.server.wait_until_listening(22)

    def begin(self, form: str, *, wait_for_probe: bool = True) -> subprocess.Popen[str]:
        """Start the program and return when it has mounted, or tried to."""
        words = [form, self.server.address, str(self.folder / "key"), str(self.remote)]
        words += [str(self.local), str(self.folder / "m.csv"), "yes" if wait_for_probe else "no"]
        program = subprocess.Popen(
            in_mount_namespace(self.node, [sys.executable, str(PROGRAM), *words]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(TESTS), "PTZMESH_NODE": "cam-7"},
        )
        assert program.stdout is not None
        assert program.stdout.readline() == "mounted\n"
        return program

    def end(self, program: subprocess.Popen[str]) -> dict[str, Any]:
        """Let it unmount and give what it told, records by operation."""
        output, _ = program.communicate("go\n", timeout=300)
        assert program.returncode == 0
        told: dict[str, Any] = json.loads(output)
        told["by"] = {record["operation"]: record for record in told["records"]}
        return told


def in_mount_namespace(node: Node, argv: list[str]) -> list[str]:
    """`ip netns exec` gives each process a mount namespace of its own, so the mount is its own."""
    return node.inside(argv)


@pytest.fixture
def mounts(lab: MakeLab, tmp_path: Path) -> Iterator[Mounts]:
    made = Mounts(lab(2), tmp_path)
    yield made
    subprocess.run(["fusermount", "-uzq", str(made.local)], check=False, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("form", ["old", "new"])
def test_a_mount_is_timed_and_probed_and_pings_surround_it(mounts: Mounts, form: str) -> None:
    mounts.lab.round_trip(mounts.node, mounts.server, 20)
    mounts.lab.shape(mounts.node, down_mbps=40)
    told = mounts.end(mounts.begin(form))
    assert told["mounted"] is True
    assert told["unmounted"] is (None if form == "old" else True)
    by = told["by"]
    assert (
        [by[name]["outcome"] for name in ("mount", "probe", "unmount")] == ["ok"] * 3
        if ("unmount" in by)
        else ["ok"] * 2
    )
    assert by["mount"]["probe"] == by["probe"]["probe"] == "sshfs"
    assert (by["probe"]["target"], by["probe"]["address"]) == (
        str(mounts.local),
        mounts.server.address,
    )
    assert by["mount"]["elapsed_s"] > 0.1  # ssh's handshake is several round trips
    for name in ("before_mount", "after_mount"):
        assert 20 <= by[name]["rtt_min_ms"] < 30
    # One round trip at least for each, and the rate of the link for the larger file.
    for name in ("create_ms", "fsync_ms", "read_ms", "delete_ms"):
        assert by["probe"][name] >= 19, name
    assert by["probe"]["bytes_read"] == by["probe"]["bytes_written"] == 4 * 1024 * 1024
    assert 6 < by["probe"]["read_mbps"] < 40  # all of it in the 5 s that it may take
    assert by["probe"]["throughput_mbps"] == by["probe"]["read_mbps"]
    assert list(mounts.remote.iterdir()) == []


def test_an_unmount_in_the_middle_of_a_probe_is_not_held_up(mounts: Mounts) -> None:
    mounts.lab.shape(mounts.node, up_mbps=2)  # the larger file would take its full 5 s
    told = mounts.end(mounts.begin("new", wait_for_probe=False))
    assert (told["mounted"], told["unmounted"]) == (True, True)
    assert told["by"]["probe"]["outcome"] == "cancelled"
    assert told["unmount_s"] < UNMOUNT_S


def test_a_server_that_falls_silent_holds_neither_the_probe_nor_the_unmount(
    mounts: Mounts,
) -> None:
    mounts.lab.shape(mounts.node, up_mbps=2)  # or the probe might be over before the cut
    program = mounts.begin("new", wait_for_probe=False)
    mounts.lab.cut(mounts.node, mounts.server)
    told = mounts.end(program)
    assert told["unmounted"] is True
    assert told["by"]["probe"]["outcome"] == "cancelled"
    assert told["unmount_s"] < UNMOUNT_S


def test_a_server_that_is_not_there_is_a_mount_that_failed(mounts: Mounts) -> None:
    mounts.sshd.kill()
    mounts.sshd.wait()
    told = mounts.end(mounts.begin("new"))
    assert told["mounted"] is False
    lines = (mounts.folder / "m.csv").read_text().splitlines()
    assert len([line for line in lines if "mount() gave False" in line]) == 2
