"""SIGTERM and Ctrl-C as a wish that a command asks about."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any


def stop_on_signals() -> Callable[[], bool]:
    """Turn the first SIGTERM or Ctrl-C into a clean end; a second one ends the process at once."""
    stopping = threading.Event()
    before: dict[int, Any] = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _frame: object) -> None:
        stopping.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    return stopping.is_set
