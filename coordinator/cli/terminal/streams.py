"""
The three standard streams, any of which may be closed, on a full disk, or of a narrow encoding.

A closed one is opened on /dev/null, so that no file of ours gets its number and, with it, the error
messages. Standard output is then one that takes nothing: a command that prints results fails.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress

from worker.model.errors import ConfigError

#: Number and name of each stream → how its stand-in is opened.
STREAMS = (("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY))


def prepare() -> None:
    """Open what is closed, and let no character that a stream has not be an error."""
    for number, (name, flags) in enumerate(STREAMS):
        if getattr(sys, name) is None:
            _stand_in(number, name, flags)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _stand_in(number: int, name: str, flags: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, flags)  # the lowest free number, which may be another's
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        os.set_inheritable(number, True)
    mode = "r" if name == "stdin" else "w"
    setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def finish() -> None:
    """
    Write what stdout still holds; afterwards nothing is left that could fail.

    Raises:
        BrokenPipeError: Its reader has gone.
        ConfigError: It takes no more.
    """
    try:
        sys.stderr.flush()
    except OSError:
        _mute(2)
    try:
        sys.stdout.flush()
    except OSError as exc:
        _mute(1)
        if exc.errno == errno.EPIPE:
            raise
        raise ConfigError(
            f"standard output cannot be written: {exc.strerror}; make room, or send it elsewhere"
        ) from exc


def complain(line: str) -> None:
    """Write a line on stderr, where it can be written: else the exit code has to do."""
    try:
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - the one place
    except OSError:
        _mute(2)


def _mute(number: int) -> None:
    """Send what is left in a buffer nowhere: at exit Python would fail once more."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
