"""
One process that has a node's name, and which of two with the same token has it.

A token lies in the state folder, so a copy of the folder (a cloned disk) has it, too. Each start
draws an id, and waits until the process before must have been heard, if it lives: so a copy
measures nothing under a name that is not its own. One that was away meanwhile shows that it lives
when it is back, and the one that began later ends. `lua/heartbeat.lua` decides.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO

from worker.host.machine import boot_id
from worker.model.errors import ConfigError
from worker.model.text import one_line
from worker.wire import liveness

#: A process that lives is heard within a heartbeat and the exchange that it takes.
SETTLE_S = liveness.HEARTBEAT_S + 2
#: Between two looks whether the one before is heard.
LOOK_S = 1.0
#: Once may be what a process sent before it died, and the network kept.
HEARD_ALIVE = 2


@dataclass(frozen=True, kw_only=True)
class Instance:
    """
    One process of a node.

    Attributes:
        token: Of the name, from the state folder.
        file: Which file holds the token, on which boot of which kernel; empty when that is unknown.
            A process that holds the same file as another did knows that this has ended.
        id: Of this process.
    """

    token: str = field(repr=False)
    file: str
    id: str = field(default_factory=lambda: secrets.token_hex(8))


def instance_of(file: IO[str], token: str) -> Instance:
    """Draw an instance for a process that holds the node's file."""
    status, boot = os.fstat(file.fileno()), boot_id()
    return Instance(token=token, file=boot and f"{boot}:{status.st_dev}:{status.st_ino}")


@dataclass(frozen=True)
class Other:
    """The process that has, or had, the name: where, and when Redis last heard of it."""

    word: str
    host: str
    address: str
    seen: str

    def __str__(self) -> str:
        """Return where it is."""
        return f"host {self.host or 'unknown'} at {self.address or 'an unknown address'}"


def other_from(answer: Sequence[bytes]) -> Other:
    """Read what `lua/heartbeat.lua` answers when it does not register."""
    word, host, address, seen = (one_line(part.decode(errors="replace")) for part in answer)
    return Other(word, host, address, seen)


@dataclass
class Succession:
    """What is heard of the process that had the name before, by this machine's monotonic clock."""

    #: How often since the first look.
    heard: int = 0
    _seen: str = ""
    _changed_at: float = 0.0

    def note(self, other: Other, now: float) -> bool:
        """Take one look; True for the first."""
        is_first = not self._seen
        if other.seen != self._seen:
            self.heard += not is_first
            self._seen, self._changed_at = other.seen, now
        return is_first

    @property
    def lives(self) -> bool:
        """It was heard too often to be what is left of one that died."""
        return self.heard >= HEARD_ALIVE

    def has_ended(self, now: float) -> bool:
        """It would have been heard by now."""
        return bool(self._seen) and now - self._changed_at > SETTLE_S


def refusal(name: str, address: str, other: Other) -> ConfigError:
    """Return the error of a process that may not have a name, as another has it."""
    if other.word == "taken":
        return ConfigError(
            f"node name ({name}) is taken by a live node, {other}; choose another --name, or stop "
            f"that node, or wait {liveness.ALIVE_S} s if it was killed"
        )
    return ConfigError(
        f"node name ({name}) is that of two workers whose state folders have the same token, as a "
        f"copied disk or a shared volume has: one on {other}, and this one, which began later, on "
        f"host {socket.gethostname()} at {address}; stop one of them, or give it another --name"
    )
