"""
Runs the monitor's small jobs beside the host program, one after another, on one thread.

A job has a key and is not queued twice: one that is asked for too often is done as often as it can.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from worker.monitor.guard import log_failure

#: A host that asks for more than this at once gets the rest later, or not.
MAX_WAITING = 64

Job = Callable[[], None]


class Beside:
    """One thread, started when it is first needed."""

    def __init__(self) -> None:
        """Prepare; no thread runs yet."""
        self._waiting: queue.SimpleQueue[tuple[str, Job]] = queue.SimpleQueue()
        self._keys: set[str] = set()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None

    def submit(self, key: str, job: Job) -> bool:
        """Queue a job; False when one of its key, or too many, are waiting already."""
        with self._lock:
            if key in self._keys or len(self._keys) >= MAX_WAITING:
                return False
            self._keys.add(key)
            self._waiting.put((key, job))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="ptzmesh-beside", daemon=True
                )
                self._thread.start()
        return True

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing is being done."""
        return not self._keys

    def _work(self) -> None:
        while True:
            key, job = self._waiting.get()
            try:
                job()
            except Exception as exc:  # a job that fails must not stop the next
                log_failure(key, exc)
            with self._lock:
                self._keys.discard(key)
