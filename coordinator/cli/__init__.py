"""
The command line: the only place that prints, and where worker and coordinator are put together.

Exit codes: 0 done, 1 our bug, 2 usage or settings, 3 Redis unreachable, 4 the run ended with pairs
missing or failed, 130 Ctrl-C.

This file imports next to nothing, so that Ctrl-C is in our hands before the imports that take a
third of a second: a KeyboardInterrupt among them would be a traceback.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

#: Of a command that Ctrl-C has ended.
INTERRUPTED = 130
#: What rich's live display has hidden meanwhile.
SHOW_CURSOR = b"\x1b[?25h"


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command line; every failure is one line on stderr and an exit code.

    Ctrl-C ends the process at once while it imports and when it has nothing left to do; in between
    it is a KeyboardInterrupt, which a command may catch. Where it is ignored, as under `nohup`, it
    stays so.
    """
    before = signal.getsignal(signal.SIGINT)
    is_ours = before is signal.default_int_handler
    if is_ours:
        signal.signal(signal.SIGINT, _leave)
    try:
        if arguments is None:
            gc.disable()  # until `begin_command`: modules are no garbage
        from coordinator.cli import group

        if is_ours and arguments is None:
            sys.unraisablehook = _unraisable
        code = group.run(arguments)
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, _leave if arguments is None else before)
    sys.exit(code)


def begin_command() -> None:
    """
    Note that what a command imports is there.

    Ctrl-C is a KeyboardInterrupt from now on. The collector looks at what comes from now on, and
    never at the modules: that would be a tenth of the time that a short command takes.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)


def _unraisable(raised: Any) -> None:
    """End where Ctrl-C came upon code that cannot raise, and would go unheard with a traceback."""
    if not isinstance(raised.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(raised)
        return
    if os.isatty(1):
        os.write(1, SHOW_CURSOR)
    _leave()
