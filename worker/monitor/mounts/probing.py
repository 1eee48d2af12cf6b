"""
Probes a mounted folder in a process that can be killed, and kills it before an unmount.

The process is `mount_probe.py`; a folder has one at a time, and none while it is being unmounted.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone
from typing import Any

from worker.model.measurement import Measurement, Outcome
from worker.monitor.mounts import mount_probe
from worker.monitor.process import recorder
from worker.monitor.records.record import SSHFS, record

#: What a probe moves in each direction: 2 s on a link of 16 Mbit/s, 1 % of one model.
BULK_BYTES = 4 * 1024 * 1024
#: Either direction is cut short after this long.
BULK_MAX_S = 5.0
PROBE_DEADLINE_S = 30.0
START_S = 1.0
#: How often to check whether a probe is to end.
LOOK_S = 0.2
#: A killed process leaves the kernel within milliseconds, unless the server has gone; then it
#: stays, but in a mount namespace of its own, where it keeps no host from unmounting.
KILL_DEADLINE_S = 1.0
#: A probe's file on the server, one a node, so that what a crash leaves is one file.
PROBE_FILE = ".ptzmesh-probe-{source}"


def probe_mount(
    folder: str,
    *,
    host: str = "",
    bulk_bytes: int = BULK_BYTES,
    deadline_s: float = PROBE_DEADLINE_S,
    mount_only: bool = True,
) -> Measurement:
    """
    Probe a folder in a process of its own, and wait for it; the result is not recorded yet.

    Args:
        folder: A mount point.
        host: Whose folder it is.
        bulk_bytes: What crosses the network in each direction, at most; 0 leaves rates out.
        deadline_s: Later than this the probe is killed.
        mount_only: Refuse a folder that is not a mount point.
    """
    begun, started_at = time.monotonic(), datetime.now(timezone.utc)
    argv = [sys.executable, "-I", "-S", mount_probe.__file__, folder]
    argv += ["--name", PROBE_FILE.format(source=recorder().settings.source)]
    argv += ["--bulk-bytes", str(bulk_bytes), "--max-s", str(BULK_MAX_S)]
    argv += ["--deadline-s", str(deadline_s), *([] if mount_only else ["--anywhere"])]
    result = dict(probes.run(folder, argv, deadline_s))
    outcome = Outcome(result.pop("outcome", Outcome.OK))
    return record(
        probe=SSHFS,
        target=folder,
        address=host,
        outcome=outcome,
        error=result.pop("error", ""),
        started_at=started_at,
        throughput_mbps=result.get("read_mbps"),
        detail={"operation": "probe", "elapsed_s": time.monotonic() - begun, **result},
    )


_UNMOUNTING = {"outcome": Outcome.CANCELLED, "error": "the folder is being unmounted"}
_HANGS = {"outcome": Outcome.TARGET_BUSY, "error": "the last probe still hangs there"}


class Probes:
    """The probes at work, one a folder, and the folders where there may be none."""

    def __init__(self) -> None:
        """Begin without any."""
        self.reset()

    def reset(self) -> None:
        """Forget all, as a fork's child does: its parent's probes and lock are not its own."""
        self.lock = threading.Lock()
        self.running: dict[str, _Probe] = {}
        self.leaving: set[str] = set()

    def run(self, folder: str, argv: list[str], deadline_s: float) -> dict[str, Any]:
        """Return what a probe of the folder printed, or why it printed nothing."""
        with self.lock:
            last = self.running.get(folder)
            if folder in self.leaving:
                return _UNMOUNTING
            if last and last.process.poll() is None:
                return _HANGS
            probe = self.running[folder] = _Probe(argv)
        return probe.wait(deadline_s)

    def keep_out(self, folder: str) -> None:
        """Let no probe begin in the folder, and kill the one that is there."""
        with self.lock:
            self.leaving.add(folder)
            running = self.running.get(folder)
        if running is not None:
            running.end()

    def let_in(self, folder: str) -> None:
        """Let probes begin in the folder again."""
        self.leaving.discard(folder)


class _Probe:
    def __init__(self, argv: list[str]) -> None:
        self.ended = False
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",  # a process whose folder is in the mount would keep it
            start_new_session=True,
        )

    def wait(self, deadline_s: float) -> dict[str, Any]:
        # It ends itself at its deadline; the rest is for its start.
        give_up_at = time.monotonic() + deadline_s + START_S
        output = None
        while output is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                output, _ = self.process.communicate(timeout=LOOK_S)
            if output is None and (self.ended or time.monotonic() > give_up_at):
                # Once sshfs has a request, the kernel lets nobody go before it is answered.
                self.process.kill()
                output = b""
        with contextlib.suppress(ValueError):
            if isinstance(printed := json.loads(output), dict):
                return printed
        if self.ended:
            return _UNMOUNTING
        if self.process.returncode in (None, -signal.SIGALRM):
            return {"outcome": Outcome.TIMEOUT, "error": f"no end after {deadline_s:.0f} s"}
        return {"outcome": Outcome.BAD_REPLY, "error": "the probe printed no result"}

    def end(self) -> None:
        """Kill it and wait a little until it has left the folder."""
        self.ended = True
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(KILL_DEADLINE_S)


probes = Probes()
os.register_at_fork(after_in_child=probes.reset)
