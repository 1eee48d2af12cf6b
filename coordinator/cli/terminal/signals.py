"""SIGTERM and Ctrl-C as a wish that a command asks about."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable


def stop_on_signals() -> Callable[[], bool]:
    """Turn SIGTERM and Ctrl-C into a clean end: what is read is written first."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    return stopping.is_set
