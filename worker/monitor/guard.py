"""
Keeps the monitor from ever disturbing its host: nothing is raised, nothing is logged twice.

An exception would end a training of hours, so whatever goes wrong is a log line, and the host gets
the value that stands for "not measured".
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

_logged_at: dict[str, float] = {}


def never_raises(instead: Callable[[], S]) -> Callable[[Callable[P, R]], Callable[P, R | S]]:
    """
    Make a function log what it would raise, and return `instead()`.

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
                log_failure(function.__qualname__, exc)
                return instead()

        return guarded

    return decorate


def log_failure(name: str, exc: BaseException) -> None:
    """Log that something of the monitor's failed, the traceback at debug level."""
    kind = type(exc).__name__
    if log_once(f"{name}/{kind}", "monitor: %s failed: %s: %s", name, kind, exc):
        logger.debug("monitor: where %s failed", name, exc_info=exc)


def log_once(key: str, message: str, *args: object) -> bool:
    """Warn, unless a message of the same key was logged within `QUIET_S`; whether it was logged."""
    now = time.monotonic()
    last = _logged_at.get(key)
    if last is not None and now - last < QUIET_S:
        return False
    if len(_logged_at) < MAX_REMEMBERED or last is not None:
        _logged_at[key] = now
    logger.warning(message, *args)
    return True


def forget(key: str) -> None:
    """Let the next message of this key be logged: the trouble is over."""
    _logged_at.pop(key, None)
