"""
What an RQ worker of a node shows the supervisor, in memory that both have.

The node's heartbeats keep the worker registered while it gives signs of life: so it need not, over
a connection that has nothing else to carry.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager

_ALIVE, _WAITS = 0, 1


class Signs:
    """Signs of one worker, on the monotonic clock, which processes have in common."""

    def __init__(self) -> None:
        """Begin without any."""
        self._times = multiprocessing.get_context("fork").RawArray("d", 2)

    def begin(self) -> None:
        """Forget what the process before has shown."""
        self._times[_ALIVE] = self._times[_WAITS] = 0.0

    def show(self) -> None:
        """Give a sign of life."""
        self._times[_ALIVE] = time.monotonic()

    def shown_within(self, seconds: float) -> bool:
        """Look whether there was one of late."""
        shown = self._times[_ALIVE]
        return bool(shown) and time.monotonic() - shown <= seconds

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Show that nothing is done but to wait for a job."""
        self._times[_WAITS] = time.monotonic()
        try:
            yield
        finally:
            self._times[_WAITS] = 0.0

    @property
    def waits_since(self) -> float:
        """Since when; infinite where it does not wait."""
        return float(self._times[_WAITS]) or math.inf
