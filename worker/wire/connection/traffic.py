"""
How many bytes this node's processes exchange with Redis, both ways, as they are on the wire.

The kernel counts what each TCP connection sends and gets (TCP_INFO, tcp(7)), what is sent again
included; to each segment, one without data as well, come the headers down to Ethernet's. Counted so
are all connections that `command_count` makes. Linux only; of a Unix socket nothing is on a wire.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

from worker.wire.connection import slots

#: Of linux/tcp.h, struct tcp_info: options; bytes_acked, bytes_received, segs_out, segs_in, which
#: came with Linux 4.2, as bytes_sent did with 4.19.
_INFO = struct.Struct("=5xB114x2Q2I")
_BYTES_SENT = struct.Struct("=200xQ")
_INFO_BYTES = _INFO.size + 64
_TIMESTAMPS = 1
#: Bytes of headers: Ethernet's and TCP's, those of IP, and TCP's timestamps.
_ALWAYS, _IP, _TIMES = 14 + 20, {socket.AF_INET: 20, socket.AF_INET6: 40}, 12
#: Between two samples of the total, and how many are kept: an hour of them.
SAMPLE_S, KEPT = 60.0, 61
DAY_S = 86_400.0
#: Segments with which a connection ends, after it was looked at last.
_ENDING = 3

_bytes = slots.page("Q")
_opened_at = slots.page("d")
#: The connections of this process.
_open: WeakSet[Any] = WeakSet()


def _after_fork() -> None:
    # What the parent opened is the parent's to count.
    global _open
    _open = WeakSet()


os.register_at_fork(after_in_child=_after_fork)


def wire_bytes(link: socket.socket) -> int:
    """Return the bytes of one connection so far; 0 where that is not known."""
    if link.family not in _IP or not hasattr(socket, "TCP_INFO"):
        return 0
    info = b""
    with suppress(OSError):
        info = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(info) < _INFO.size:
        return 0
    options, sent, received, segments_out, segments_in = _INFO.unpack_from(info)
    if len(info) >= _BYTES_SENT.size:
        (sent,) = _BYTES_SENT.unpack_from(info)
    header = _ALWAYS + _IP[link.family] + (_TIMES if options & _TIMESTAMPS else 0)
    return int(sent + received + header * (segments_out + segments_in))


def opened(link: Any) -> None:
    """Take a connection of redis-py that has been made just now, or is in use already."""
    if link in _open:
        return
    _opened_at[slots.mine()] = time.monotonic()
    link.socket_bytes = 0
    _open.add(link)


def passes_on(link: Any) -> None:
    """Count a connection here no more: a process that is forked now takes it over."""
    _count(link)
    _open.discard(link)


def takes_over(link: Any) -> None:
    """Count a connection from where the parent of this process left it."""
    _open.add(link)


def closes(link: Any) -> None:
    """Count a connection for the last time, before it is closed."""
    if link in _open:
        header = _count(link)
        _open.discard(link)
        _bytes[slots.mine()] += header


def _count(link: Any) -> int:
    """Add what has passed since the last look; return what its end will take."""
    end = link._sock
    if end is None:
        return 0
    now = wire_bytes(end)
    if now > link.socket_bytes:
        _bytes[slots.mine()] += now - link.socket_bytes
        link.socket_bytes = now
    return _ENDING * (_ALWAYS + _IP[end.family] + _TIMES) if now else 0


def look() -> None:
    """Count what has passed by the connections of this process."""
    for link in list(_open):
        _count(link)


def total_bytes() -> int:
    """Return the bytes of all processes of this node, as of the last look of each."""
    return sum(_bytes)


def opened_at(role: str | None = None) -> float:
    """
    Return when a process last made a connection, on the monotonic clock; 0 when it did not.

    Args:
        role: Of the process; this one by default.
    """
    return float(_opened_at[slots.mine() if role is None else slots.SLOTS[role]])


@dataclass
class Daily:
    """
    How many bytes a day a total grows by, as of the latest hour, after its first minute.

    The beginning says nothing of a day: then scripts are loaded, and what is there is looked at.

    >>> daily = Daily(since=0.0)
    >>> [daily.add(now, int(100 * now) + 5000) for now in (30.0, 60.0, 90.0, 120.0)]
    [None, None, None, 8600000]
    """

    since: float
    _samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=KEPT))

    def add(self, now: float, total: int) -> int | None:
        """Take a total at a time in seconds; return bytes a day, to two digits, None at first."""
        latest = self._samples[-1][0] if self._samples else self.since
        if now - latest >= SAMPLE_S:
            self._samples.append((now, total))
        if len(self._samples) < 2:
            return None
        (begun, first), (ended, last) = self._samples[0], self._samples[-1]
        return int(float(f"{(last - first) / (ended - begun) * DAY_S:.1e}"))
