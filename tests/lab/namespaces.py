"""
Network namespaces whose names tell which process made them, so that none outlives it for long.

Needs root, iproute2 and a kernel that lets this process create network namespaces.
"""

import itertools
import os
import re
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from lab.commands import CommandFailed, ip_batch

NETNS = Path("/run/netns")

#: Longest wait for killed processes to be gone; the kernel needs milliseconds of a processor.
KILL_DEADLINE_S = 60.0

_OWNED = re.compile(r"ptzlab-(?P<pid>\d+)-")
_serial = itertools.count()
#: A process that was killed may have left labs, and had the number that is now this one's.
_own = secrets.token_hex(2)


def new_prefix() -> str:
    """Begin of the names of one lab; no other lab of this or another live process has it."""
    return f"ptzlab-{os.getpid()}-{_own}{next(_serial)}-"


@cache
def why_unusable() -> str | None:
    """What keeps this machine from running a lab, in one line; None when nothing does."""
    if os.geteuid() != 0:
        return "the lab needs root"
    if missing := [tool for tool in ("ip", "tc", "nft") if shutil.which(tool) is None]:
        return f"the lab needs {', '.join(missing)}"
    if not Path("/dev/net/tun").exists():
        return "the lab needs /dev/net/tun"
    name = f"{new_prefix()}probe"
    try:
        ip_batch([f"netns add {name}", f"netns del {name}"])
    except CommandFailed as exc:
        return f"the lab needs network namespaces: {exc.stderr.strip()}"
    return None


def remove(names: Iterable[str]) -> None:
    """Kill every process inside the namespaces, whoever started it, then delete them."""
    present = [name for name in names if (NETNS / name).exists()]
    kill_inside(present)
    # Two sessions may sweep the same leftovers: a name already gone is no error.
    ip_batch([f"netns del {name}" for name in present], force=True)


def kill_inside(names: Iterable[str]) -> None:
    """
    SIGKILL every process inside the namespaces, until there are none.

    Process groups and parents do not matter: a daemon that left its session is found too.

    Raises:
        TimeoutError: A process is still there after KILL_DEADLINE_S.
    """
    namespaces = list(names)
    give_up_at = time.monotonic() + KILL_DEADLINE_S
    while pids := list(pids_inside(namespaces)):
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"processes {pids} survive SIGKILL in {namespaces}")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)  # between two looks, so that the dying get the processor


def pids_inside(names: Iterable[str]) -> Iterator[int]:
    """Processes that live in one of the namespaces; zombies live in none."""
    wanted = {_identity(NETNS / name) for name in names} - {None}
    if not wanted:
        return
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _identity(entry / "ns/net") in wanted:
            yield int(entry.name)


def sweep_leftovers() -> None:
    """Remove the namespaces and directories of labs whose process is dead."""
    if NETNS.is_dir():
        remove(path.name for path in NETNS.iterdir() if _is_orphan(path.name))
    for path in Path(tempfile.gettempdir()).glob("ptzlab-*"):
        if _is_orphan(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _is_orphan(name: str) -> bool:
    owner = _OWNED.match(name)
    return owner is not None and not Path("/proc", owner["pid"]).exists()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
