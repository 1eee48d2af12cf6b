"""Stop signals: SIGTERM and SIGINT are blocked in a node's process, but where it can end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopAsked(BaseException):
    """SIGTERM or SIGINT came while Redis was waited for."""


@contextmanager
def stoppable() -> Iterator[None]:
    """
    Let a stop signal end the block: Redis may not answer for longer than a stop may take.

    Raises:
        StopAsked: It came.
    """

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise StopAsked

    for number in STOP_SIGNALS:
        signal.signal(number, leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def stop_comes_within(wait_s: float) -> bool:
    """Wait for a stop signal, which is blocked; return whether one came."""
    caught = signal.sigtimedwait(STOP_SIGNALS, wait_s)
    # After a pause (SIGSTOP, suspend, docker pause) CPython may give what is no signal.
    return caught is not None and caught.si_signo in STOP_SIGNALS
