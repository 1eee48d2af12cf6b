"""
What the host program is doing, as it says itself; every record of the monitor is tagged with it.

One stack for the process, not one a thread: what is measured on the monitor's own thread must be
tagged with what the host's threads do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from worker.model.text import one_line

#: A tag longer than this is cut: it is a word such as `world_model`.
MAX_TAG_CHARS = 64

_stack: list[str] = []
_cycle: list[int] = []


@contextlib.contextmanager
def activity(name: str) -> Iterator[None]:
    """Tag what is recorded within the block; activities may be nested, the innermost counts."""
    tag = one_line(str(name))[:MAX_TAG_CHARS]
    _stack.append(tag)
    try:
        yield
    finally:
        _remove(tag)


def set_cycle(number: int) -> None:
    """Tag what is recorded from here on with the number of the host's cycle."""
    _cycle[:] = [int(number)]


def tags() -> dict[str, Any]:
    """
    Give the present tags; what the host has not said is left out.

    >>> with activity("world_model"), activity("save"):
    ...     tags()["activity"]
    'save'
    """
    # Copied in one step: another thread may be between its append and its remove.
    stack, cycle = _stack[-1:], _cycle[:]
    found: dict[str, Any] = {"activity": stack[0]} if stack else {}
    return found | ({"cycle": cycle[0]} if cycle else {})


def _remove(tag: str) -> None:
    """Take the last such tag away; threads do not end in the order in which they began."""
    for index in range(len(_stack) - 1, -1, -1):
        if _stack[index] == tag:
            del _stack[index]
            return
