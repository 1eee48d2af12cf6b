"""
How long the way to Redis and back takes, from the exchanges that this process has anyway.

What waits for another node through Redis allows for it: `allowing`. A process that is forked knows
nothing of it before its own first exchange: those of its parent may be old.
"""

from __future__ import annotations

import os
from collections import deque

#: Exchanges that are looked at: some of them wait at Redis for something else, but not so many one
#: after the other; and a node may be on another network by now.
KEPT = 16
#: No way is taken for longer: beyond it Redis counts as away.
MOST_S = 5.0
#: From so long a way on, a connection is opened before it is needed, and an open one passed on.
LONG_WAY_S = 0.1

_latest_s: deque[float] = deque(maxlen=KEPT)


os.register_at_fork(after_in_child=_latest_s.clear)


def note(seconds: float) -> None:
    """Take what the first answer to something sent took."""
    _latest_s.append(seconds)


def way_s() -> float:
    """Return the shortest of the latest exchanges, in seconds; 0 before the first."""
    return min(MOST_S, min(_latest_s, default=0.0))


def allowing(limit_s: float, round_trips: float) -> float:
    """Return a limit that holds beside Redis, made longer by so many round trips to it."""
    return limit_s + round_trips * way_s()
