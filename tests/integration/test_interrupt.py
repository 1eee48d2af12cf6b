"""Ctrl-C at any moment: one line or none, exit code 130; a reader that goes is no failure."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: As the installed script does it; Ctrl-C comes with our import number N, counted from the first
#: after which it is ours to hear. Without an N, it says how many there are.
SCRIPT = """
import os, signal, sys
wanted, count = int(sys.argv.pop(1)), 0
def at_import(event, args):
    global count
    # Like a terminal: what is looked at is imports, and these may happen in any frame.
    if event == "import" and "coordinator.cli.group" in sys.modules:
        count += 1
        if count == wanted:
            os.kill(os.getpid(), signal.SIGINT)
from coordinator.cli import main
sys.addaudithook(at_import)
try:
    main()
finally:
    if not wanted:
        os.write(2, b"imports=%d" % count)
"""
#: Nothing listens there: `nodes` imports all that it needs, and ends.
COMMAND = ["nodes", "--redis", "redis://127.0.0.1:1"]


def interrupted_at(moment: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(moment), *COMMAND],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def lines(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def moments() -> int:
    whole = interrupted_at(0)
    assert whole.returncode == 3
    return int(whole.stderr.rpartition("imports=")[2])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
def test_ctrl_c_while_it_imports_is_not_a_traceback(moments: int, share: float) -> None:
    assert moments > 100
    done = interrupted_at(1 + int(share * moments))
    assert (done.returncode, done.stdout) == (130, "")
    assert len(lines(done.stderr)) <= 1
    assert "Traceback" not in done.stderr


def test_ctrl_c_that_comes_upon_code_which_cannot_raise_ends_it_all_the_same() -> None:
    code = (
        "import os, signal, sys, coordinator.cli\n"
        "class Dying:\n"
        "    def __del__(self): os.kill(os.getpid(), signal.SIGINT); [0 for _ in range(9)]\n"
        "def begin(_): Dying(); print('it goes on'); return 0\n"
        "from coordinator.cli import group\n"
        "def run(_): coordinator.cli.begin_command(); return begin(_)\n"
        "group.run = run\n"
        "coordinator.cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_that_the_caller_ignores_stays_ignored() -> None:
    code = (
        "import os, signal, sys\n"
        "from coordinator.cli import main\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "try: main(['--version'])\n"
        "finally: os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_reader_of_our_output_that_has_gone_is_no_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "coordinator.cli", "--help"],
            stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
