"""Says what a command waits for, when Redis takes long to let it in at first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.cli.terminal.screen import err
from worker.wire.connection import command_count

#: A person wonders after this long.
SILENCE_S = 2.0


@contextmanager
def waiting_for_redis(where: str) -> Iterator[None]:
    """
    Print one line if the first connection to Redis is still being made after a while.

    Not of a Redis that goes away later: a worker logs that.

    By a timer's signal and not a thread: a worker forks its children meanwhile.

    Args:
        where: The URL, without secrets.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def look(_number: int, _frame: object) -> None:
        if command_count.is_kept_waiting():
            how = ", after a TLS handshake" if where.startswith("rediss:") else ""
            err().print(f"waiting for Redis at {where} to answer{how}")

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, SILENCE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def say_no_more() -> None:
    """Leave it to the command to say what it waits for."""
    signal.setitimer(signal.ITIMER_REAL, 0)
