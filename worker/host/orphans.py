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
    Reap ended children that are not among our own, whose exit codes their starters wait for.

    Args:
        own: Process ids that are left alone.

    Returns:
        The ids that were reaped. One of our own that has ended hides those behind it until its
        starter has waited for it.
    """
    reaped: list[int] = []
    with suppress(ChildProcessError):
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid in own:
                break
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)
            reaped.append(ended.si_pid)
    return reaped
