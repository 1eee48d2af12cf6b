"""
The answering port: one UDP port of a node, open for some seconds, that answers authentic datagrams.

See `packet` for what is authentic. Replies leave from the address that was asked, and are
not fragmented here, so that a reply of a size says that this size passes.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from worker.probes.answer import packet

#: From linux/in.h and linux/in6.h; Python does not name all of them.
IP_PKTINFO, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 8, 10, 23, 3
#: Interface and address, as the kernel gives and takes them.
_IN6_PKTINFO, _IN_PKTINFO = struct.Struct("=16sI"), struct.Struct("=I4s4s")
#: A node that is stopped closes the port so soon: before its own processes have ended.
STOP_CHECK_S = 0.05
#: Ports of the range that are tried, so many answer at a time: one a node and who asks for its own.
MOST_AT_A_TIME = 8

Ancillary = Iterable[tuple[int, int, bytes]]


def open_port(ports: Sequence[int]) -> socket.socket | None:
    """
    Bind the first free one of the last few ports, for both versions of IP; None when none is free.

    The last, and never the first: a test's server takes that, and for UDP the port of the same
    number; it would find it taken for some seconds just when the tests begin.
    """
    for port in list(reversed(ports[1:]))[:MOST_AT_A_TIME]:
        for family in (socket.AF_INET6, socket.AF_INET):
            with suppress(OSError):
                return _bound(family, port)
    return None


def _bound(family: int, port: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
        else:
            opened.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        opened.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))  # noqa: S104 - a name or a router's address may be the node's
    except BaseException:
        opened.close()
        raise
    return opened


def answer_until(
    opened: socket.socket,
    name: str,
    secret: bytes,
    until: float,
    should_stop: Callable[[], bool],
) -> None:
    """Answer as node `name` until the monotonic time `until`; what is not authentic, never."""
    while (left_s := until - time.monotonic()) > 0 and not should_stop():
        if not select.select([opened], [], [], min(left_s, STOP_CHECK_S))[0]:
            continue
        with suppress(OSError):  # a reply that its own network card or a firewall does not let out
            data, ancillary, _, asker = opened.recvmsg(packet.MOST_BYTES, 256)
            reply = packet.answer(data, name, secret)
            if reply is not None:
                opened.sendmsg([reply], _from_asked(ancillary), 0, asker)


def _from_asked(ancillary: Ancillary) -> list[tuple[int, int, bytes]]:
    """Return what makes a reply leave from the address that its request came to."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            address, _ = _IN6_PKTINFO.unpack_from(data)
            return [(level, kind, _IN6_PKTINFO.pack(address, 0))]
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            _, address, _ = _IN_PKTINFO.unpack_from(data)
            return [(level, kind, _IN_PKTINFO.pack(0, address, bytes(4)))]
    return []
