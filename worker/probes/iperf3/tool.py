"""
The iperf3 on this machine: where it is, what its version can do, and how it is run.

Needs iperf3 3.7 or newer on PATH. Every process is started from an argv list with an environment of
its own, in a process group of its own, and ends with the *thread* that started it, as the kernel's
parent-death signal is bound to a thread.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from worker.host.parent import end_with
from worker.model.options import TransferOptions
from worker.probes.iperf3.errors import first_line

Version = tuple[int, ...]
#: Tells a program on the disk from another one: its path, device, inode, size, time of change.
Mark = tuple[str, int, int, int, int]

#: The first with --bidir, and with the end of a test as exact as we read it.
MIN_VERSION: Version = (3, 7)
#: Before, both directions of --bidir have the same names in JSON.
BIDIR_VERSION: Version = (3, 11)
#: Before, a server that is to end when idle only starts again; our deadline ends it.
IDLE_EXIT_VERSION: Version = (3, 11)
#: From here on each stream has a thread; before, one core is all that a test can use.
THREADS_VERSION: Version = (3, 16)

#: It answers in milliseconds, but a machine may start all that it runs at once.
VERSION_DEADLINE_S = 30.0
#: A process that was asked to end has this long to print what it has.
GRACE_S = 3.0
#: How often `should_stop` is asked.
STOP_CHECK_S = 0.2
READ_BYTES = 65536
#: What is kept of a process's output; the rest is read and thrown away.
MAX_KEPT_BYTES = 16 * 1024 * 1024 + 1


@dataclass(frozen=True)
class Iperf3:
    """
    The iperf3 of a machine.

    Attributes:
        path: Where it is; empty when it is not on PATH.
        text: Its version as it says it.
        version: The numbers of that.
        fault: Why it cannot be used, and what to do; empty when it can.
    """

    path: str
    text: str = ""
    version: Version = ()
    fault: str = ""


NOT_THERE = Iperf3("", fault="iperf3 is not on PATH; install iperf3 3.7 or newer")
#: A program that was built from source finds its library where ldconfig, or this variable, says.
NO_LIBRARY = "error while loading shared libraries"
FIND_LIBRARY = (
    "sudo ldconfig, or LD_LIBRARY_PATH where ptzmesh is started, lets it find its library"
)


def mark_of_iperf3() -> Mark | None:
    """Return which iperf3 is on PATH, without starting it; None when there is none."""
    path = shutil.which("iperf3")
    if path is None:
        return None
    try:
        status = os.stat(path)  # noqa: PTH116 - a path as text
    except OSError:  # it has gone in between
        return None
    return path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def find_iperf3(deadline_s: float = VERSION_DEADLINE_S) -> Iperf3:
    """Find iperf3 on PATH and ask it for its version; its `fault` says why it does not answer."""
    path = shutil.which("iperf3")
    if path is None:
        return NOT_THERE
    try:
        process = Tool([path, "--version"])
    except OSError as exc:  # of another kind of machine, or being written
        fault = f"{path} cannot be started: {exc.strerror}; install iperf3 3.7 or newer"
        return Iperf3(path, fault=fault)
    ended = process.pump(time.monotonic() + deadline_s)
    process.kill()
    if match := re.match(rb"iperf (\S{1,20})", process.stdout) if ended else None:
        text = match[1].decode("ascii", "replace")
        return Iperf3(path, text, parse_version(text))
    output = first_line((process.stderr + process.stdout).decode("utf-8", "replace"))
    fault = f"does not start: {output or 'it says nothing'}"
    if not ended:
        fault = f"did not answer within {deadline_s:g} s"
    advice = FIND_LIBRARY if ended and NO_LIBRARY in output else f"try it: {path} --version"
    return Iperf3(path, fault=f"{path} {fault}; {advice}")


def parse_version(text: str) -> Version:
    """
    Return a version's numbers; what is no version is older than all.

    >>> parse_version("3.19.1+")
    (3, 19, 1)
    >>> parse_version("who knows")
    ()
    """
    match = re.match(r"\d{1,4}(\.\d{1,4})*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def why_unable(iperf3: Iperf3, options: TransferOptions) -> str | None:
    """Return why such a test cannot be run here, and what it needs; None when it can."""
    if iperf3.fault:
        return iperf3.fault
    if iperf3.version < MIN_VERSION:
        return f"iperf3 is version {iperf3.text}; 3.7 or newer is needed"
    if options.bidir and iperf3.version < BIDIR_VERSION:
        return f"iperf3 is version {iperf3.text}; --bidir needs 3.11 or newer"
    return None


def clean_environment() -> dict[str, str]:
    """Return the environment of an iperf3: its messages in English, and nothing of ours."""
    kept = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
    # iperf3 keeps the data it sends in a file under the first; elsewhere may be read-only. One that
    # was built from source may need the second to find its own library.
    return kept | {n: os.environ[n] for n in ("TMPDIR", "LD_LIBRARY_PATH") if n in os.environ}


@dataclass
class Tool:
    """One process and what it has printed so far; started from the thread that waits for it."""

    argv: Sequence[str]
    stdout: bytes = b""
    stderr: bytes = b""
    process: subprocess.Popen[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Start it."""
        self.process = subprocess.Popen(
            list(self.argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(),
            start_new_session=True,  # a process group to kill, and no terminal that interrupts it
            preexec_fn=end_with(os.getpid(), signal.SIGKILL),
        )
        pipes = {"stdout": self.process.stdout, "stderr": self.process.stderr}
        self._pipes = {name: pipe for name, pipe in pipes.items() if pipe}
        self._open = {pipe.fileno(): name for name, pipe in self._pipes.items()}

    def pump(
        self,
        deadline: float,
        *,
        until: Callable[[], bool] = lambda: False,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """
        Read what it prints until it has ended, `until` holds, `should_stop` or the deadline.

        Args:
            deadline: On the monotonic clock, in seconds.
            until: Asked whenever something was read.
            should_stop: Asked a few times a second.

        Returns:
            Whether it has ended, or `until` holds.
        """
        while self._open:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or should_stop():
                return False
            for descriptor in select.select([*self._open], [], [], min(left_s, STOP_CHECK_S))[0]:
                self._read(descriptor)
                if until():
                    return True
        return True

    def _read(self, descriptor: int) -> None:
        data = os.read(descriptor, READ_BYTES)
        name = self._open[descriptor]
        if data:
            setattr(self, name, (getattr(self, name) + data)[:MAX_KEPT_BYTES])
        else:
            del self._open[descriptor]

    def interrupt(self) -> None:
        """Ask it to end and print what it has; after `GRACE_S` it is killed."""
        self._signal(signal.SIGINT)
        self.pump(time.monotonic() + GRACE_S)
        self.kill()

    def exit_code(self) -> int | None:
        """Return the exit code of one that has closed its output; None when it has not ended."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)
        return self.process.returncode

    def kill(self) -> None:
        """End its whole process group, and wait for it."""
        self._signal(signal.SIGKILL)
        for pipe in self._pipes.values():
            pipe.close()
        self._open = {}
        self.process.wait()

    def _signal(self, number: int) -> None:
        # Until it is waited for, its process group cannot become another's.
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
