"""
What keeps the monitor from ever disturbing its host: nothing is raised, nothing is said twice.

The monitor lives inside a program that has other things to do. Its functions are called at places
where an exception would end a training of hours, so whatever goes wrong in one of them is a log
line, and the host gets the value that stands for "not measured".
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

logger = logging.getLogger(__name__)

#: The same trouble is logged again after this long.
QUIET_S = 3600.0
#: Different troubles that are remembered; more than these are logged each time.
MAX_REMEMBERED = 1000

_told: dict[str, float] = {}


def never_raises(instead: Callable[[], S]) -> Callable[[Callable[P, R]], Callable[P, R | S]]:
    """
    Make a function log what it would raise, and give `instead()`.

    KeyboardInterrupt and SystemExit pass: they are the host's.

    >>> never_raises(lambda: 0)(lambda text: int(text))("7")
    7
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R | S]:
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R | S:
            try:
                return function(*args, **kwargs)
            except Exception as exc:  # the promise of this module: see its docstring
                tell_failure(function.__qualname__, exc)
                return instead()

        return guarded

    return decorate


def tell_failure(what: str, exc: BaseException) -> None:
    """Log that something of the monitor's failed, the traceback at debug level."""
    kind = type(exc).__name__
    if tell(f"{what}/{kind}", "monitor: %s failed: %s: %s", what, kind, exc):
        logger.debug("monitor: where %s failed", what, exc_info=exc)


def tell(key: str, message: str, *args: object, level: int = logging.WARNING) -> bool:
    """
    Log a message unless one of the same key was logged within `QUIET_S`.

    Returns:
        Whether it was logged.
    """
    now = time.monotonic()
    last = _told.get(key)
    if last is not None and now - last < QUIET_S:
        return False
    if len(_told) < MAX_REMEMBERED or last is not None:
        _told[key] = now
    logger.log(level, message, *args)
    return True


def forget(key: str) -> None:
    """Let the next message of this key be logged: the trouble is over."""
    _told.pop(key, None)
