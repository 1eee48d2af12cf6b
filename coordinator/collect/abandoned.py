"""
Collectors that nobody runs any more: which they are, and what is to be done. Pure.

What a collector has not got is kept for it, so one that never comes back fills the stream up until
every run stands still. It is named long before.
"""

from __future__ import annotations

import shlex
from urllib.parse import unquote

#: A collector that is run once a day is no fault; one that missed a day and a half is.
ABANDONED_S = 36 * 3600.0


def is_abandoned(idle_s: float | None, unread_s: float | None) -> bool:
    """
    Return whether nobody has run a collector for long.

    Where Redis does not know when one of an older version last ran (None), the age of the first
    result that it has not read says for how long it has been away.

    >>> is_abandoned(ABANDONED_S + 1, None), is_abandoned(60.0, 9 * ABANDONED_S)
    (True, False)
    >>> is_abandoned(None, ABANDONED_S + 1), is_abandoned(None, None)
    (True, False)
    """
    return ((unread_s or 0.0) if idle_s is None else idle_s) > ABANDONED_S


def run_again(group: str) -> str:
    """
    Return what runs a collector again; the default name of its group says where, and which file.

    >>> run_again("csv:hub:/data/my%20file.csv")
    "on hub: ptzmesh collect --csv '/data/my file.csv'"
    """
    match group.split(":", 2):
        case ["csv", host, path] if path:
            return f"on {unquote(host)}: ptzmesh collect --csv {shlex.quote(unquote(path))}"
    return f"ptzmesh collect --group {shlex.quote(group)} --csv FILE"


def forget_it(group: str) -> str:
    """
    Return what lets Redis drop what it keeps for a collector.

    >>> forget_it("compose")
    'ptzmesh collect --forget compose'
    """
    return f"ptzmesh collect --forget {shlex.quote(group)}"
