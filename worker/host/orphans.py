"""
Reaps processes that the kernel gave to this one as their parent died, as an init would.

In a container without an init the supervisor is process 1, which inherits the work-horses of a
killed prober; each that ends would stay a zombie.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress


def reap(own: Collection[int]) -> list[int]:
    """
    Reap ended children but our own, whose exit codes their starters wait for; returns their ids.

    One of our own that has ended hides those behind it until its starter has waited for it.
    """
    reaped: list[int] = []
    with suppress(ChildProcessError):
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while (ended := os.waitid(os.P_ALL, 0, look)) and ended.si_pid not in own:
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)
            reaped.append(ended.si_pid)
    return reaped
