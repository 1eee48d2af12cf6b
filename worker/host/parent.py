"""A child process that ends with the one that started it, however that ends (Linux: prctl(2))."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

#: From linux/prctl.h.
PR_SET_PDEATHSIG = 1


def end_with(parent: int, number: signal.Signals) -> Callable[[], None]:
    """
    Build what the child calls, before exec or instead of it, to get a signal when `parent` ends.

    The kernel binds this to the *thread* that started the child. Elsewhere than on Linux it does
    nothing.
    """
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork

    def ask_kernel() -> None:
        if hasattr(libc, "prctl"):
            libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
            if os.getppid() != parent:  # it ended before the kernel was asked
                os._exit(1)

    return ask_kernel
