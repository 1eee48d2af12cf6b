"""The units: valid, and closed as far as the services that they start can bear."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from lab.mesh import LabMesh, children_of
from lab.namespaces import why_unusable
from lab.net import Lab

from deploy.commands import check_command, examples
from deploy.needs import DOCKER, missing, tool

UNITS = sorted((DOCKER / "systemd").glob("*.service"))
WORKER = DOCKER / "systemd" / "ptzmesh-worker.service"
INSTALLED = "/opt/ptzmesh/bin/ptzmesh"

#: Of `systemd-analyze security`, in tenths: up to here it says OK.
MOST_EXPOSED = 20
#: A worker is slow whose every call is looked at.
TRACED_S = 300.0


def settings(unit: Path) -> dict[str, list[str]]:
    """Give a unit's settings; one that stands there more than once has more than one value."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@cache
def calls_of(name: str) -> frozenset[str]:
    """Give the system calls of a group, or the one of this name."""
    if not name.startswith("@"):
        return frozenset({name})
    argv = [tool("systemd-analyze"), "syscall-filter", "--no-pager", name]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    lines = [line.strip() for line in listed.splitlines()[1:]]
    return frozenset().union(*(calls_of(line) for line in lines if line and line[0] != "#"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_unit_is_one_that_systemd_takes(unit: Path, tmp_path: Path) -> None:
    ours = tmp_path / unit.name
    script = str(Path(sys.executable).with_name("ptzmesh"))
    ours.write_text(unit.read_text().replace(INSTALLED, script))
    analyze = tool("systemd-analyze")
    done = subprocess.run([analyze, "verify", ours], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    argv = [analyze, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", ours]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_command_and_settings_of_a_unit_are_ones_that_ptzmesh_has(
    unit: Path, tmp_path: Path
) -> None:
    (command,) = settings(unit)["ExecStart"]
    program, *arguments = command.replace("%S", "/var/lib").split()
    assert program == INSTALLED
    example = unit.with_name(f"{unit.stem.removeprefix('ptzmesh-')}.env.example")
    inline = [value.split("=", 1) for value in settings(unit)["Environment"]]
    variables = {**examples(example), **dict(inline)}
    assert len(variables) >= 3
    check_command(arguments, variables, tmp_path)


def test_worker_makes_no_system_call_that_its_unit_forbids(tmp_path: Path) -> None:
    if reason := why_unusable():
        missing(reason)
    trace = tmp_path / "calls"
    with Lab(2, redis=True) as lab:
        mesh = LabMesh(lab)
        strace = [tool("strace"), "-f", "-q", "-c", "-U", "name", "-o", str(trace)]
        traced = mesh.start(lab.nodes[0], prefix=strace)
        mesh.start(lab.nodes[1])
        mesh.wait_until_alive("n0", "n1", deadline_s=TRACED_S)
        probes = ("ping", "tcp", "throughput", "udp", "redis")
        asked = [word for probe in probes for word in ("--probe", probe)]
        command = ("run", "--json", "--count", "3", "--duration", "1", *asked)
        said = mesh.cli(lab.nodes[1], *command, timeout_s=TRACED_S)
        assert said.code == 0, said.err
        (supervisor,) = children_of(traced.pid)
        os.kill(supervisor, signal.SIGTERM)
        assert traced.wait(TRACED_S) == 0
        mesh.close()
    words = {line.strip() for line in trace.read_text().splitlines()}
    made = {word for word in words if word.isidentifier() and word not in ("total", "syscall")}
    assert {"socket", "sendto", "execve", "prctl"} <= made
    allowed: set[str] = set()
    for line in settings(WORKER)["SystemCallFilter"]:
        names = {name for group in line.removeprefix("~").split() for name in calls_of(group)}
        allowed = allowed - names if line.startswith("~") else allowed | names
    assert sorted(made - allowed) == []
