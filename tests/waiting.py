"""The one way in which a test waits for something: a condition, a deadline, and words for both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar

import redis

#: Waiting costs nothing where the condition comes true, and many processes may share two cores.
DEADLINE_S = 120.0

#: Is set once nobody will ask for the outcome of the test that waits in this thread.
NOT_WANTED: ContextVar[threading.Event | None] = ContextVar("NOT_WANTED", default=None)


class NotWanted(BaseException):
    """Ends a test whose outcome nobody will ask for."""


def wait_until(
    condition: Callable[[], object],
    what: str,
    deadline_s: float = DEADLINE_S,
    every_s: float = 0.02,
) -> None:
    """
    Wait until the condition is true; a Redis that is away meanwhile makes it false.

    Args:
        condition: Looked at again and again.
        what: What is waited for, in words that a failure shows.
        deadline_s: After this the test fails.
        every_s: Seconds between two looks.
    """
    __tracebackhide__ = True
    give_up_at = time.monotonic() + deadline_s
    while True:
        trouble = None
        try:
            if condition():
                return
        except redis.ConnectionError as exc:
            trouble = exc
        if time.monotonic() >= give_up_at:
            raise AssertionError(f"not within {deadline_s:g} s: {what}") from trouble
        go_on_waiting(every_s)


def go_on_waiting(seconds: float) -> None:
    """Sleep between two looks, unless the test is not wanted any more."""
    not_wanted = NOT_WANTED.get()
    if not_wanted is None:
        time.sleep(seconds)
    elif not_wanted.wait(seconds):
        raise NotWanted
