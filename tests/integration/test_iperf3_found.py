"""An iperf3 that is there and does not start: what is wrong with it, and what lets it start."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from coordinator.checks import machine
from coordinator.checks.check import Status
from worker.model.options import ThroughputOptions
from worker.model.policy import Policy
from worker.node.registration.facts import Facts, NoFile, Said
from worker.probes.iperf3.tool import find_iperf3, why_unable
from worker.wire.node_record import Node

#: The library of a Debian's iperf3, and the name of one that no folder of the system has.
LIBRARY, ELSEWHERE = b"libiperf.so.0", b"libipeXf.so.0"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have an iperf3 on PATH, as built from source, whose library is in the folder given."""
    found = find_iperf3()
    if found.fault:
        pytest.skip(found.fault)
    program = Path(found.path).read_bytes()
    linked = subprocess.run(["ldd", found.path], capture_output=True, text=True, check=True).stdout
    path = re.search(r"libiperf\.so\.0 => (\S+)", linked)
    if LIBRARY not in program or path is None:
        pytest.skip("this iperf3 has its library in itself")
    binaries, libraries = tmp_path / "bin", tmp_path / "lib"
    binaries.mkdir()
    libraries.mkdir()
    (binaries / "iperf3").write_bytes(program.replace(LIBRARY, ELSEWHERE))
    (binaries / "iperf3").chmod(0o755)
    shutil.copy(path[1], libraries / ELSEWHERE.decode())
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    return libraries


def test_iperf3_without_its_library_says_so_and_what_helps(library: Path) -> None:
    found = find_iperf3()
    assert Path(found.path).parent.parent == library.parent
    assert "iperf3 does not start: " in found.fault
    assert "libipeXf.so.0: cannot open shared object file" in found.fault
    assert "; sudo ldconfig, or LD_LIBRARY_PATH where ptzmesh is started" in found.fault
    assert why_unable(found, ThroughputOptions()) == found.fault
    assert "not on PATH" not in found.fault


def test_iperf3_starts_with_the_library_path_that_ptzmesh_was_started_with(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    found = find_iperf3()
    assert found.fault == ""
    assert found.version >= (3, 7)
    assert machine.iperf3_test(wanted=True).status is Status.OK


def test_doctor_and_the_node_say_why(library: Path) -> None:
    check = machine.iperf3(None, wanted=True)
    assert check.status is Status.FAIL
    assert "libipeXf.so.0" in check.message
    assert check.fix.startswith("sudo ldconfig")
    facts = Facts(said=Said(labels={}, policy=Policy()), reread=NoFile())
    facts.look()
    record = facts.in_record(Node(name="a", address="127.0.0.1"))
    assert record.iperf3 == ""
    assert "libipeXf.so.0" in record.iperf3_fault


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\necho 'Illegal instruction' >&2\nexit 132\n", "does not start: Illegal instr"),
        ("#!/bin/sh\nexit 1\n", "does not start: it says nothing"),
        ("no program", "cannot be started: Exec format error"),
        ("#!/no/such/shell\n", "cannot be started: No such file or directory"),
    ],
)
def test_program_that_fails_in_another_way_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    program = tmp_path / "iperf3"
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert f"{program} {said}" in find_iperf3().fault
