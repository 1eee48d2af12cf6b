"""
What the host program is doing, by its own account; every record of the monitor is tagged with it.

One for the process, not one a thread: what is measured on the monitor's own thread must be tagged
with what the host's threads do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from worker.model.text import one_line

#: A tag longer than this is cut: it is a word such as `world_model`.
MAX_TAG_CHARS = 64

#: Those under way, by a key of each: threads do not end in the order in which they began.
_activities: dict[object, str] = {}
_cycle: int | None = None


@contextlib.contextmanager
def activity(name: str) -> Iterator[None]:
    """Tag what is recorded within the block; activities may be nested, the innermost counts."""
    key = object()
    _activities[key] = one_line(str(name))[:MAX_TAG_CHARS]
    try:
        yield
    finally:
        del _activities[key]


def set_cycle(number: int) -> None:
    """Tag what is recorded from now on with the number of the host's cycle."""
    global _cycle
    _cycle = int(number)


def tags() -> dict[str, Any]:
    """
    Return the present tags; those that the host has not set are left out.

    >>> with activity("world_model"), activity("save"):
    ...     tags()["activity"]
    'save'
    """
    # Copied in one step: another thread may begin or end an activity meanwhile.
    activities = list(_activities.values())
    present = {"activity": activities[-1] if activities else None, "cycle": _cycle}
    return {name: tag for name, tag in present.items() if tag is not None}
