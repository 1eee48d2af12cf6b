"""
What the monitor has in a process: one recorder, one thread beside.

A forked child starts with nothing: its parent's threads are not there, its parent's records are its
parent's to write, and its parent's locks may have been held at the fork.
"""

from __future__ import annotations

import multiprocessing.util
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from worker.monitor.beside import Beside
from worker.monitor.guard import never_raises
from worker.monitor.records.recorder import Recorder
from worker.monitor.settings import MonitorSettings, load_settings

#: At its end the host waits at most this long for the last records.
EXIT_DEADLINE_S = 2.0


@dataclass(eq=False)
class _Process:
    settings: MonitorSettings | None = None
    csv_target: Path | None = None
    recorder: Recorder | None = None
    beside: Beside = field(default_factory=Beside)
    lock: threading.RLock = field(default_factory=threading.RLock)
    one_test: threading.Lock = field(default_factory=threading.Lock)


#: The present process; only this module refers to it, so a fork can put another in its place.
_process = _Process()


def configure(
    *, source: str | None = None, redis_url: str | None = None, csv_path: Path | str | None = None
) -> Recorder:
    """
    Set where this process's records go; None leaves it to the environment.

    Args:
        source: Name of this node; else `PTZMESH_NODE`, else the host name.
        redis_url: Redis of the mesh; else `PTZMESH_REDIS_URL`, `REDIS_URL`, or none.
        csv_path: The loop's file; else `PTZMESH_METRICS_CSV`, else
            `/persistence/network_metrics.csv`.

    Returns:
        The recorder; what it has already goes to the new places, too.
    """
    path = None if csv_path is None else Path(csv_path)
    settings = load_settings(os.environ, source=source, redis_url=redis_url, csv_path=path)
    with _process.lock:
        _process.settings = settings
        recorder().use(settings)
        return recorder()


def recorder() -> Recorder:
    """Return this process's recorder."""
    with _process.lock:
        if _process.recorder is None:
            settings = _process.settings or load_settings(os.environ)
            _process.recorder = Recorder(settings, csv_target=_process.csv_target)
            # Not with `atexit`, without which a child of multiprocessing ends.
            multiprocessing.util.Finalize(None, _finish, exitpriority=10)
        return _process.recorder


def configured_redis() -> str | None:
    """Return the Redis that was configured, else the one that the environment names, if any."""
    settings = _process.settings
    return (settings and settings.redis_url) or load_settings(os.environ).redis_url


def beside() -> Beside:
    """Return this process's thread for small jobs."""
    return _process.beside


def one_test() -> threading.Lock:
    """Return the lock of throughput tests: two at once would measure each other."""
    return _process.one_test


@never_raises(lambda: None)
def _finish() -> None:
    """Publish what waits, as the process ends."""
    if _process.recorder is not None:
        _process.recorder.close(EXIT_DEADLINE_S)


def _reset_after_fork() -> None:
    """Forget the parent's threads, records and locks, but not where records go."""
    global _process
    parent = _process.recorder
    _process = _Process(_process.settings, None if parent is None else parent.csv_target)


os.register_at_fork(after_in_child=_reset_after_fork)
