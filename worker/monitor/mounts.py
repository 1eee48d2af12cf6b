"""
SSHFS mounts, timed and probed: a mixin and a decorator for PTZJEPA's `SSHFSMounter`.

    @measured_mounts
    class SSHFSMounter: ...

Works with any class that has `mount()` and `unmount()` and is told `host_ip` and
`local_data_directory`. On the caller's thread a mount costs well under a millisecond more; an
unmount waits for a probe in the folder to be killed, `KILL_DEADLINE_S` at most.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from worker.measurement import Measurement, Outcome
from worker.monitor import mount_probe
from worker.monitor.guard import never_raises
from worker.monitor.network import keep, measure_hosts
from worker.monitor.process import beside, recorder
from worker.monitor.record import SSHFS, label, record

#: What a probe moves in each direction: 2 s on a link of 16 Mbit/s, 1 % of one model.
BULK_BYTES = 4 * 1024 * 1024
#: Either direction is cut short after this long.
BULK_MAX_S = 5.0
PROBE_DEADLINE_S = 30.0
#: A killed process leaves the kernel within milliseconds; waiting for it may not hold up the host.
KILL_DEADLINE_S = 2.0
#: A probe's file on the server, one a node, so that what a crash leaves is one file.
PROBE_FILE = ".ptzmesh-probe-{source}"


@dataclass(frozen=True)
class Place:
    """What is mounted where."""

    host: str
    folder: str


class MeasuredMounts:
    """
    Mixin: put it before PTZJEPA's class among the bases.

    The results of `mount` and `unmount` are that class's own, whatever becomes of the measuring.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Hand everything to PTZJEPA's class."""
        super().__init__(*args, **kwargs)
        self._place = _place_of(self, super().__init__, args, kwargs)

    def mount(self, *args: Any, **kwargs: Any) -> Any:
        """Mount, timed; beside it the host is pinged, and afterwards the folder is probed."""
        _ping_beside(self._place, "before_mount")
        mounted = _timed("mount", self._place, _method(super(), "mount"), args, kwargs)
        if mounted:
            _ping_beside(self._place, "after_mount")
            _probe_beside(self._place)
        return mounted

    def unmount(self, *args: Any, **kwargs: Any) -> Any:
        """Unmount, timed, after a probe of the folder was ended: an open file would keep it."""
        _keep_out(self._place)
        try:
            return _timed("unmount", self._place, _method(super(), "unmount"), args, kwargs)
        finally:
            _probes.leaving.discard(self._place.folder)


Mounter = TypeVar("Mounter", bound=type)


def measured_mounts(mounter: Mounter) -> Mounter:
    """Decorator: give a class whose mounts are measured, under the same name."""
    names = {
        "__module__": mounter.__module__,
        "__qualname__": mounter.__qualname__,
        "__doc__": mounter.__doc__,
    }
    return cast("Mounter", type(mounter.__name__, (MeasuredMounts, mounter), names))


def probe_mount(
    folder: str,
    *,
    host: str = "",
    bulk_bytes: int = BULK_BYTES,
    deadline_s: float = PROBE_DEADLINE_S,
    mount_only: bool = True,
) -> Measurement:
    """
    Probe a folder in a process of its own, and wait for it; what was found is not recorded yet.

    Args:
        folder: A mount point.
        host: Whose folder it is.
        bulk_bytes: What crosses the network in each direction, at most; 0 leaves rates out.
        deadline_s: Later than this the probe is killed.
        mount_only: Refuse a folder that is no mount point.
    """
    place, begun, at = Place(host, folder), time.monotonic(), datetime.now(timezone.utc)
    argv = [sys.executable, "-I", "-S", mount_probe.__file__, folder]
    argv += ["--name", PROBE_FILE.format(source=recorder().settings.source)]
    argv += ["--bulk-bytes", str(bulk_bytes), "--max-s", str(BULK_MAX_S)]
    argv += ["--deadline-s", str(deadline_s), *([] if mount_only else ["--anywhere"])]
    probe = _probes.start(folder, argv)
    found = _UNMOUNTING.copy() if probe is None else probe.wait(deadline_s)
    outcome = Outcome(found.pop("outcome", Outcome.OK))
    return record(
        probe=SSHFS,
        target=place.folder,
        address=place.host,
        outcome=outcome,
        error=found.pop("error", ""),
        started_at=at,
        throughput_mbps=found.get("read_mbps"),
        detail={"operation": "probe", "elapsed_s": time.monotonic() - begun, **found},
    )


_UNMOUNTING: dict[str, Any] = {
    "outcome": Outcome.CANCELLED,
    "error": "the folder is being unmounted",
}


class _Probes:
    """The probes at work, one a folder, and the folders where there may be none."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: dict[str, _Probe] = {}
        self.leaving: set[str] = set()

    def start(self, folder: str, argv: list[str]) -> _Probe | None:
        """Start a probe, unless the folder is being unmounted."""
        with self.lock:
            if folder in self.leaving:
                return None
            self.running[folder] = _Probe(argv)
            return self.running[folder]

    def end(self, folder: str) -> None:
        """Let no probe begin in the folder, and kill the one that is there."""
        with self.lock:
            self.leaving.add(folder)
            running = self.running.pop(folder, None)
        if running is not None:
            running.end()


class _Probe:
    """A process at work in a folder."""

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
        self._gone = threading.Event()

    def wait(self, deadline_s: float) -> dict[str, Any]:
        try:
            output, _ = self.process.communicate(timeout=deadline_s + 1.0)
            return dict(json.loads(output))
        except subprocess.TimeoutExpired:
            self.process.kill()
            return {"outcome": Outcome.TIMEOUT, "error": f"no end after {deadline_s:.0f} s"}
        except ValueError:
            return self._cut_short(deadline_s)
        finally:
            self._gone.set()

    def _cut_short(self, deadline_s: float) -> dict[str, Any]:
        if self.ended:
            return _UNMOUNTING.copy()
        if self.process.returncode == -signal.SIGALRM:
            return {"outcome": Outcome.TIMEOUT, "error": f"no end after {deadline_s:.0f} s"}
        return {"outcome": Outcome.BAD_REPLY, "error": "the probe printed no result"}

    def end(self) -> None:
        """Kill it and wait until it has left the folder."""
        self.ended = True
        self.process.kill()
        self._gone.wait(KILL_DEADLINE_S)


_probes = _Probes()


def _begin_anew() -> None:
    """A parent's probes are not the child's."""
    _probes.__init__()  # type: ignore[misc]  # the one object that this module uses stays the same


os.register_at_fork(after_in_child=_begin_anew)


@never_raises(lambda: None)
def _ping_beside(place: Place, operation: str) -> None:
    if not place.host:
        return

    def job() -> None:
        for found in measure_hosts([place.host]):
            keep(place.host, replace(found, detail={**found.detail, "operation": operation}))

    beside().submit(f"{operation}/{place.host}", job)


@never_raises(lambda: None)
def _probe_beside(place: Place) -> None:
    if place.folder:
        probe = threading.Thread(target=_probe_job, args=(place,), name="ptzmesh-mount")
        probe.daemon = True
        probe.start()


@never_raises(lambda: None)
def _probe_job(place: Place) -> None:
    recorder().add(probe_mount(place.folder, host=place.host))


@never_raises(lambda: None)
def _keep_out(place: Place) -> None:
    _probes.end(place.folder)


def _timed(
    operation: str,
    place: Place,
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    begun, at = time.monotonic(), datetime.now(timezone.utc)
    try:
        result = method(*args, **kwargs)
    except BaseException as exc:
        error = f"{type(exc).__name__}: {exc}"
        _note(operation, place, at, begun, Outcome.CRASHED, error)
        raise
    # The older form's unmount gives nothing; only a plain False is a failure.
    outcome = Outcome.REFUSED if result is False else Outcome.OK
    error = "" if outcome is Outcome.OK else f"{operation}() gave False"
    _note(operation, place, at, begun, outcome, error)
    return result


@never_raises(lambda: None)
def _note(
    operation: str, place: Place, at: datetime, begun: float, outcome: Outcome, error: str
) -> None:
    recorder().add(
        record(
            probe=SSHFS,
            target=place.folder,
            address=place.host,
            outcome=outcome,
            error=error,
            started_at=at,
            detail={"operation": operation, "elapsed_s": time.monotonic() - begun},
        )
    )


class _HasMethods(Protocol):
    def __getattribute__(self, name: str) -> Any: ...


def _method(parent: _HasMethods, name: str) -> Callable[..., Any]:
    return cast("Callable[..., Any]", getattr(parent, name))


@never_raises(lambda: Place("", ""))
def _place_of(
    mounter: object, made: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Place:
    """Read what was mounted where from the constructor's arguments, else from attributes."""
    try:
        told = inspect.signature(made).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        told = {}
    host, folder = (
        str(told.get(name) or getattr(mounter, name, ""))
        for name in ("host_ip", "local_data_directory")
    )
    return Place(label(host), str(Path(os.path.expanduser(folder))) if folder else "")  # noqa: PTH111
