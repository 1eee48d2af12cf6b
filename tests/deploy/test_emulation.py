"""The machine is as it was after programs of another architecture ran on it."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from deploy.emulation import BINFMT, FLAGS, MAGIC, PREFIX, Architecture, runnable

#: Nobody makes it; its emulator says what it is given to run.
PROCESSOR = Architecture("imagined", "imagined", 0xFEED, "echo")

#: Beyond what a kernel gives out (pid_max is at most 2^22).
DEAD_PID = 5_000_000


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program for the imagined processor."""
    path = tmp_path / "program"
    path.write_bytes(MAGIC + PROCESSOR.elf_machine.to_bytes(2, "little") + bytes(44))
    path.chmod(0o755)
    return path


def refused(program: Path) -> bool:
    """Tell whether this machine does not know the format of a program."""
    try:
        subprocess.run([program], check=False)
    except OSError as exc:
        return exc.errno == errno.ENOEXEC
    return False


def seen() -> tuple[int, list[Path]]:
    """Give how often binfmt_misc is mounted, and the entries of this process."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    here = sum(line.split()[1] == str(BINFMT) for line in mounts)
    return here, list(BINFMT.glob(f"{PREFIX}{os.getpid()}-*"))


def test_foreign_program_runs_within_the_block_and_nothing_is_left_behind(program: Path) -> None:
    before = seen()
    assert refused(program)
    with runnable(PROCESSOR):
        said = subprocess.run([program, "word"], capture_output=True, text=True, check=True)
        assert said.stdout.split() == [str(program), str(program), "word"]
        assert seen() != before
    assert refused(program)
    assert seen() == before


def test_block_that_fails_leaves_nothing_behind_either(program: Path) -> None:
    before = seen()
    with pytest.raises(RuntimeError, match="in the middle"), runnable(PROCESSOR):
        raise RuntimeError("in the middle")
    assert seen() == before
    assert refused(program)


def test_entry_of_a_killed_process_goes_with_the_next_block() -> None:
    with runnable(PROCESSOR):
        left = BINFMT / f"{PREFIX}{DEAD_PID}-0"
        (BINFMT / "register").write_text(f":{left.name}:E::ptzmesh-left::/bin/true:{FLAGS}")
        try:
            with runnable(PROCESSOR):
                assert not left.exists()
        finally:
            if left.exists():
                left.write_text("-1")
