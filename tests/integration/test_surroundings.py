"""What the environment gives may be missing, wrong, read-only or full: one line says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coordinator.cli.group import COMMANDS

#: Nothing listens there.
NOWHERE = "redis://127.0.0.1:1"
PTZMESH = f"'{sys.executable}' -m coordinator.cli"
#: Each command with the least that it needs.
LEAST = {
    "worker": "worker --no-wait --name a",
    "nodes": "nodes",
    "run": "run",
    "runs": "runs",
    "show": "show R",
    "cancel": "cancel R",
    "results": "results",
    "collect": "collect --list",
    "verify": "verify R --csv none.csv",
    "events": "events",
    "test": "test 127.0.0.1 --duration 1s --no-plot --out .",
    "lockers": "lockers",
    "limits": "limits",
    "doctor": "doctor",
}
#: What a shell does around a command.
AROUND: dict[str, str] = {
    "no home": "env -u HOME -u STATE_DIRECTORY setpriv --reuid 12345 --clear-groups "
    "--inh-caps +dac_override --ambient-caps +dac_override {}",
    "stdin closed": "{} <&-",
    "stdout closed": "{} >&-",
    "stderr closed": "{} 2>&-",
    "all closed": "{} <&- >&- 2>&-",
    "stderr full": "{} 2>/dev/full",
    "stdout full": "{} >/dev/full",
    "12 files": "ulimit -n 12; {}",
    "no TMPDIR": "TMPDIR=/nonexistent {}",
    "C": "LC_ALL=C TERM= PYTHONUTF8=0 PYTHONIOENCODING=ascii {}",
    "no folder": "mkdir gone; cd gone; rmdir ../gone; {}",
    "empty": "PTZMESH_NODE= PTZMESH_REDIS_CA= PTZMESH_CONFIG= TERM= {}",
    "no text": "PTZMESH_REDIS_URL=$'redis://h\\xff' PTZMESH_NODE=$'\\xff' {}",
}
#: What all commands pass is met in these; the first also keeps files, the second prints always.
FEW = ("worker", "doctor")


@dataclass(frozen=True)
class Case:
    """A shell's line; which exit codes are right, and what must be said."""

    line: str
    codes: Sequence[int]
    says: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def told(case: Case, folder: Path) -> tuple[int, str]:
    folder.mkdir()
    environment = {
        **os.environ,
        "PTZMESH_REDIS_URL": NOWHERE,
        "STATE_DIRECTORY": str(folder / "state"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **case.environment,
    }
    done = subprocess.run(
        ["bash", "-c", case.line], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, errors="replace", timeout=300, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def wrong(cases: Sequence[Case], folder: Path) -> list[str]:
    """Run the cases, a few at a time; give what is not as it should be."""
    folders = [folder / str(number) for number in range(len(cases))]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(told, cases, folders))
    return [
        f"{case.line}\n  {code}: {said}"
        for case, (code, said) in zip(cases, answers, strict=True)
        if code not in case.codes
        or any(word in said for word in ("this is a bug", "Traceback", "Exception ignored"))
        or said.count("error: ") > 1
        or case.says not in said
    ]


def root_with(*programs: str) -> None:
    if os.geteuid() != 0 or not all(map(shutil.which, programs)):
        pytest.skip(f"needs root and {', '.join(programs)}")


def test_every_command_is_in_the_table() -> None:
    assert LEAST.keys() == set(COMMANDS) - {"demo"}  # which needs no Redis: below


def mistaken(around: str, commands: Iterable[str], folder: Path) -> list[str]:
    """Run these commands in such surroundings; give what is not as it should be."""
    if "setpriv" in AROUND[around]:
        root_with("setpriv")
    lines = [AROUND[around].format(f"{PTZMESH} {LEAST[name]}") for name in commands]
    return wrong([Case(line, (0, 1, 2, 3, 4)) for line in lines], folder)


@pytest.mark.parametrize("around", AROUND)
def test_no_command_takes_a_fault_of_its_surroundings_for_a_bug(
    around: str, tmp_path: Path
) -> None:
    assert mistaken(around, FEW, tmp_path) == []


@pytest.mark.long
@pytest.mark.parametrize("around", AROUND)
def test_nor_does_any_other_command(around: str, tmp_path: Path) -> None:
    assert mistaken(around, LEAST.keys() - set(FEW), tmp_path) == []


def test_a_stream_that_takes_nothing_is_named_and_the_command_has_failed(tmp_path: Path) -> None:
    cases = [
        Case(f"{PTZMESH} {words} {where}", (2,), "standard output cannot be written: ")
        for words in ("--version", "nodes --help")
        for where in (">/dev/full", ">&-")
    ]
    cases.append(
        Case(f"PYTHONUNBUFFERED=1 {PTZMESH} --help >/dev/full", (2,), "standard output or a file")
    )
    cases.append(Case(f"{PTZMESH} nodes 2>/dev/full", (3,)))
    cases.append(Case(f"{PTZMESH} nodes 2>&-", (3,)))
    assert wrong(cases, tmp_path) == []


def test_no_file_gets_the_number_of_a_stream_that_is_closed(tmp_path: Path) -> None:
    line = f"{PTZMESH} collect --csv x.csv 2>&- ; grep -c error x.csv"
    assert wrong([Case(line, (1, 2))], tmp_path) == []


@pytest.mark.parametrize("place", ["/etc/passwd/x", "/proc/x", "/dev/null", "full/x/y"])
def test_a_folder_that_cannot_be_used_names_its_option(place: str, tmp_path: Path) -> None:
    cases = [
        Case(f"touch full; {PTZMESH} worker --name a --state-dir {place}", (2,), "--state-dir"),
        Case(f"touch full; {PTZMESH} test 127.0.0.1 --out {place}", (2,), "--out"),
    ]
    assert wrong(cases, tmp_path) == []


def test_a_file_that_cannot_be_read_names_its_option(tmp_path: Path) -> None:
    cases = [
        Case(f"{PTZMESH} --config {path} nodes", (2,), "--config")
        for path in ("/etc", "/proc/self/mem", "nosuch", "/etc/passwd/x")
    ]
    cases.append(Case(f"mkfifo p; {PTZMESH} --config p nodes", (2,), "nobody writes"))
    cases.append(Case(f"{PTZMESH} --config <(echo) nodes", (3,)))
    assert wrong(cases, tmp_path) == []


def test_a_read_only_and_a_full_disk_name_the_option(redis_url: str, tmp_path: Path) -> None:
    root_with("unshare", "mount")
    environment = {"PTZMESH_REDIS_URL": redis_url}
    disk = "mount -t tmpfs -o size=4k{} none /mnt; head -c 8192 /dev/zero >/mnt/fill; "
    inside = disk + PTZMESH + " {}"
    commands = {
        "worker --name a --state-dir /mnt/s": "--state-dir",
        "test 127.0.0.1 --duration 1s --out /mnt/o": "--out",
        "collect --csv /mnt/c": "choose another --csv",
    }
    cases = [
        Case(f'unshare -m bash -c "{inside.format(how, words)}"', (2,), says, environment)
        for words, says in commands.items()
        for how in ("", ",ro")
    ]
    assert wrong(cases, tmp_path) == []


def test_a_csv_path_that_is_no_file_names_its_option(redis_url: str, tmp_path: Path) -> None:
    environment = {"PTZMESH_REDIS_URL": redis_url}
    cases = [
        Case(f"mkfifo p; {PTZMESH} {command} --csv {path}", (2,), "--csv", environment)
        for command in ("collect", "demo")
        for path in ("/proc/x", "p")
    ]
    assert wrong(cases, tmp_path) == []


def test_a_second_mesh_on_this_machine_is_told_of_both_ways(redis_url: str, tmp_path: Path) -> None:
    script = (
        "import fcntl, os, sys, subprocess; os.makedirs('s'); f = open('s/a.owner', 'a+'); "
        "fcntl.lockf(f, fcntl.LOCK_EX); "
        "sys.exit(subprocess.call([sys.executable, '-m', 'coordinator.cli', 'worker', '--name', "
        "'a', '--state-dir', 's']))"
    )
    line = f"'{sys.executable}' -c \"{script}\""
    cases = [
        Case(line, (2,), word, {"PTZMESH_REDIS_URL": redis_url})
        for word in ("another --name", "another --state-dir")
    ]
    assert wrong(cases, tmp_path) == []
