"""
SSHFS mounts, timed and probed: a mixin and a decorator for PTZJEPA's `SSHFSMounter`.

    @measured_mounts
    class SSHFSMounter: ...

Works with any class that has `mount()` and `unmount()`, and `host_ip` and `local_data_directory`
among its arguments or attributes. On the caller's thread a mount costs well under a millisecond
more; an unmount waits for a probe in the folder to be killed, one second at most.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar, cast

from worker.model.measurement import Outcome
from worker.monitor.guard import never_raises
from worker.monitor.mounts.probing import probe_mount, probes
from worker.monitor.network.network import ping_beside
from worker.monitor.process import recorder
from worker.monitor.records.record import SSHFS, label, record


@dataclass(frozen=True)
class Place:
    """What is mounted where."""

    host: str
    folder: str


class MeasuredMounts:
    """
    Mixin, to stand before PTZJEPA's class among the bases.

    What `mount` and `unmount` return is that class's own, whatever becomes of the measuring.
    """

    # Of a mount within that class's constructor.
    _place = Place("", "")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Hand everything to PTZJEPA's class."""
        super().__init__(*args, **kwargs)
        self._place = _place_of(self, super().__init__, args, kwargs)

    def mount(self, *args: Any, **kwargs: Any) -> Any:
        """Mount, timed; beside it the host is pinged, and afterwards the folder is probed."""
        _ping_beside(self._place, "before_mount")
        method = super().mount  # type: ignore[misc]  # PTZJEPA's class has it
        mounted = _timed("mount", self._place, functools.partial(method, *args, **kwargs))
        if mounted:
            _ping_beside(self._place, "after_mount")
            _probe_beside(self._place)
        return mounted

    def unmount(self, *args: Any, **kwargs: Any) -> Any:
        """Unmount, timed, after a probe of the folder was ended: an open file would keep it."""
        _keep_out(self._place)
        try:
            method = super().unmount  # type: ignore[misc]  # as above
            return _timed("unmount", self._place, functools.partial(method, *args, **kwargs))
        finally:
            _let_in(self._place)


Mounter = TypeVar("Mounter", bound=type)


def measured_mounts(mounter: Mounter) -> Mounter:
    """Decorate a class, so that its mounts are measured; its name stays."""
    names = {name: getattr(mounter, name) for name in ("__module__", "__qualname__", "__doc__")}
    return cast("Mounter", type(mounter.__name__, (MeasuredMounts, mounter), names))


def _ping_beside(place: Place, operation: str) -> None:
    if place.host:
        ping_beside(operation, place.host, operation=operation)


@never_raises(lambda: None)
def _probe_beside(place: Place) -> None:
    if place.folder:
        job = functools.partial(_probe_job, place)
        threading.Thread(target=job, name="ptzmesh-mount", daemon=True).start()


@never_raises(lambda: None)
def _probe_job(place: Place) -> None:
    recorder().add(probe_mount(place.folder, host=place.host))


@never_raises(lambda: None)
def _keep_out(place: Place) -> None:
    probes.keep_out(place.folder)


@never_raises(lambda: None)
def _let_in(place: Place) -> None:
    probes.let_in(place.folder)


def _timed(operation: str, place: Place, method: Callable[[], Any]) -> Any:
    begun, started_at = time.monotonic(), datetime.now(timezone.utc)
    outcome, error = Outcome.OK, ""
    try:
        result = method()
        if result is False:  # the older form's unmount returns nothing
            outcome, error = Outcome.REFUSED, f"{operation}() gave False"
        return result
    except BaseException as exc:
        outcome, error = Outcome.CRASHED, f"{type(exc).__name__}: {exc}"
        raise
    finally:
        _note(operation, place, started_at, time.monotonic() - begun, outcome, error)


@never_raises(lambda: None)
def _note(
    operation: str,
    place: Place,
    started_at: datetime,
    elapsed_s: float,
    outcome: Outcome,
    error: str,
) -> None:
    recorder().add(
        record(
            probe=SSHFS,
            target=place.folder,
            address=place.host,
            outcome=outcome,
            error=error,
            started_at=started_at,
            detail={"operation": operation, "elapsed_s": elapsed_s},
        )
    )


@never_raises(lambda: Place("", ""))
def _place_of(
    mounter: object, made: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Place:
    """Read what was mounted where from the constructor's arguments, else from attributes."""
    try:
        given = inspect.signature(made).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        given = {}
    names = ("host_ip", "local_data_directory")
    host, folder = (str(given.get(name) or getattr(mounter, name, "")) for name in names)
    return Place(label(host), str(Path(os.path.expanduser(folder))) if folder else "")  # noqa: PTH111
