"""
How large a packet may be to pass a path, and whether what is larger vanishes without a word.

A router that cannot pass a packet says so («too big»: RFC 1191, RFC 8201), and TCP sends smaller
ones. Where that word is filtered, as on many a VPN and mobile link, small packets pass and large
ones do not: pings and handshakes are fine, and no data ever comes. Pure; `asking` asks.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

#: The sizes are those of whole IP packets. What is this small passes every path that passes any.
SMALL_BYTES = 160
#: Every link of IPv6 passes this much (RFC 8200 section 5).
IPV6_LEAST_BYTES = 1280
#: IP and TCP headers without options, which the maximum segment size leaves out (RFC 6691).
HEADER_BYTES = {socket.AF_INET: 40, socket.AF_INET6: 60}
#: A size that seems lost is asked again; when it passes then, the search goes on from there.
SECOND_LOOKS = 3


class Fate(str, Enum):
    """What became of packets of one size; `silent` is when all tries had no answer."""

    PASSED = "passed"
    SILENT = "silent"
    TOO_BIG = "too_big"  # a router said so
    NO_ROOM = "no_room"  # larger than this machine's own interface sends


class Direction(str, Enum):
    """Which way the packets went that passed or vanished."""

    EITHER = "either"  # there or back, which an echo does not show
    THERE = "there"
    BACK = "back"


#: Asks for one size; the flag says to wait for as long as any answer could take.
Ask = Callable[[int, bool], Fate]


@dataclass(frozen=True, kw_only=True)
class PathMtu:
    """
    What passes a path.

    Attributes:
        family: `AF_INET` or `AF_INET6`.
        largest_bytes: The largest IP packet that passed; None when not even a small one did.
        smallest_lost_bytes: The smallest that did not; None when all did.
        fate: What became of that one.
        direction: Which way this holds for.
    """

    family: int
    largest_bytes: int | None = None
    smallest_lost_bytes: int | None = None
    fate: Fate = Fate.PASSED
    direction: Direction = Direction.EITHER

    @property
    def is_hole(self) -> bool:
        """Small packets pass, larger ones vanish, and nobody says so."""
        return self.largest_bytes is not None and self.fate is Fate.SILENT

    @property
    def mss_bytes(self) -> int | None:
        """The largest TCP segment that passes."""
        if self.largest_bytes is None:
            return None
        return self.largest_bytes - HEADER_BYTES[socket.AddressFamily(self.family)]


def search(ask: Ask, *, family: int, most_bytes: int) -> PathMtu:
    """
    Find the largest packet that passes, up to the `most_bytes` that this machine's interface sends.

    A loss that a second look does not confirm does not count.

    >>> def ask(size, patient):
    ...     return Fate.PASSED if size <= 1300 else Fate.SILENT
    >>> mtu = search(ask, family=socket.AF_INET, most_bytes=1500)
    >>> mtu.largest_bytes, mtu.smallest_lost_bytes, mtu.is_hole, mtu.mss_bytes
    (1300, 1301, True, 1260)
    """
    if ask(SMALL_BYTES, True) is not Fate.PASSED:
        return PathMtu(family=family)
    low, top = SMALL_BYTES, max(SMALL_BYTES, most_bytes)
    for _ in range(SECOND_LOOKS):
        high, fate = top, ask(top, False)
        if fate is Fate.PASSED:
            return PathMtu(family=family, largest_bytes=top)
        first = IPV6_LEAST_BYTES if family == socket.AF_INET6 and low < IPV6_LEAST_BYTES else None
        while high - low > 1:
            size = first if first and first < high else (low + high) // 2
            first, of_size = None, ask(size, False)
            if of_size is Fate.PASSED:
                low = size
            else:
                high, fate = size, of_size
        # What vanished may have been lost three times over, or come late through a full queue.
        again = ask(high, True) if fate is Fate.SILENT else fate
        if again is not Fate.PASSED:
            return PathMtu(family=family, largest_bytes=low, smallest_lost_bytes=high, fate=again)
        low = high
        if low == top:
            break
    return PathMtu(family=family, largest_bytes=low)


def in_words(mtu: PathMtu, near: str, far: str) -> str:
    """
    Describe what a path swallows, and what to do about it; empty when it swallows nothing.

    >>> hole = PathMtu(family=socket.AF_INET, largest_bytes=1300, fate=Fate.SILENT)
    >>> print(in_words(hole, "cam-1", "hub"))  # doctest: +NORMALIZE_WHITESPACE
    packets of up to 1300 bytes pass between cam-1 and hub, larger ones vanish without a word; set
    MTU 1300 on the VPN or link that carries them, or clamp TCP's MSS to 1260
    """
    if not mtu.is_hole:
        return ""
    largest = mtu.largest_bytes
    way = {
        Direction.EITHER: f"between {near} and {far}",
        Direction.THERE: f"from {near} to {far}",
        Direction.BACK: f"from {far} to {near}",
    }[mtu.direction]
    advice = f"clamp TCP's MSS to {mtu.mss_bytes}"
    # An interface of a smaller MTU has no IPv6 at all.
    if mtu.family == socket.AF_INET or (largest or 0) >= IPV6_LEAST_BYTES:
        advice = f"set MTU {largest} on the VPN or link that carries them, or {advice}"
    return (
        f"packets of up to {largest} bytes pass {way}, larger ones vanish without a word; {advice}"
    )
