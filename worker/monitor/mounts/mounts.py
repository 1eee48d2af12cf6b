"""
SSHFS mounts, timed and probed: a mixin and a decorator for PTZJEPA's `SSHFSMounter`.

    @measured_mounts
    class SSHFSMounter: ...

Works with any class that has `mount()` and `unmount()` and is told `host_ip` and
`local_data_directory`. On the caller's thread a mount costs well under a millisecond more; an
unmount waits for a probe in the folder to be killed, one second at most.
"""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from worker.model.measurement import Outcome
from worker.monitor.guard import never_raises
from worker.monitor.mounts.probing import probe_mount, probes
from worker.monitor.network.network import keep, measure_hosts
from worker.monitor.process import beside, recorder
from worker.monitor.records.record import SSHFS, label, record


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
            _let_in(self._place)


Mounter = TypeVar("Mounter", bound=type)


def measured_mounts(mounter: Mounter) -> Mounter:
    """Decorator: give a class whose mounts are measured, under the same name."""
    names = {
        "__module__": mounter.__module__,
        "__qualname__": mounter.__qualname__,
        "__doc__": mounter.__doc__,
    }
    return cast("Mounter", type(mounter.__name__, (MeasuredMounts, mounter), names))


@never_raises(lambda: None)
def _ping_beside(place: Place, operation: str) -> None:
    if not place.host:
        return

    def job() -> None:
        for found in measure_hosts([place.host]):
            keep(place.host, found.with_more({"operation": operation}))

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
    probes.keep_out(place.folder)


@never_raises(lambda: None)
def _let_in(place: Place) -> None:
    probes.let_in(place.folder)


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
