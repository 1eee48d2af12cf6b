"""
Which interface a link-local IPv6 address is on, as seen from this machine (RFC 4007).

The interface after an address's `%` is a name of the machine that wrote it. On another one the same
name may be of another link, so it is looked for there: the only interface that could reach the
address, else the only one where a neighbour answers for it.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from worker.host.machine import own_addresses6
from worker.model.text import some

LINK_LOCAL = ipaddress.IPv6Network("fe80::/10")
#: How often the kernel's table is read. All that follows is counted in such looks and not by a
#: clock, so that a process that was held up has asked and looked as often as any other.
LOOK_S = 0.02
#: 2.5 s. A neighbour that is there answers within milliseconds; a radio that sleeps may need the
#: second solicitation, which follows after 1 s (RFC 4861, RETRANS_TIMER).
MOST_LOOKS = 125
#: 1.5 s after the first, as another interface may have a neighbour of the same address: longer
#: than the kernel waits for an answer to what it asked before our time.
OTHERS_LOOKS = 75
#: 0.2 s. The kernel asks nothing again where it still waits for an answer, and then forgets.
AGAIN_LOOKS = 10
#: The kernel's answer about its own table is not on the network.
TABLE_S = 2.0
#: The discard port: what is sent there only makes the kernel ask for the neighbour.
ANY_PORT = 9

#: `struct nlmsghdr`, `struct ndmsg` and `struct rtattr` of linux/netlink.h and rtnetlink.h.
NLMSG, NDMSG, RTATTR = struct.Struct("=IHHII"), struct.Struct("=BBHiHBB"), struct.Struct("=HH")
RTM_NEWNEIGH, RTM_GETNEIGH, NLMSG_DONE, NLM_F_REQUEST, NLM_F_DUMP = 28, 30, 3, 0x1, 0x300
NDA_DST = 1
#: Neighbours whose link-layer address is known: reachable, stale, delay, probe, noarp, permanent.
KNOWN_STATES = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80


def is_link_local(address: str) -> bool:
    """
    Return whether a literal is a link-local IPv6 address, which means nothing without an interface.

    >>> is_link_local("fe80::1"), is_link_local("fe80::1%eth0"), is_link_local("169.254.0.1")
    (True, True, False)
    """
    bare = address.partition("%")[0]
    return ":" in bare and ipaddress.IPv6Address(bare) in LINK_LOCAL


def own_interfaces() -> dict[str, list[str]]:
    """Read the link-local addresses of this machine's interfaces, by interface."""
    addresses: dict[str, list[str]] = {}
    for ip, name in own_addresses6():
        if ip in LINK_LOCAL:
            addresses.setdefault(name, []).append(str(ip))
    return addresses


def zoned(address: str, *, own_zone: bool) -> tuple[str | None, str]:
    """
    Complete a link-local literal with the interface that leads to it from here; others stay.

    Args:
        address: A literal; a link-local one with or without an interface.
        own_zone: The interface that it has is one of this machine.

    Returns:
        The literal and ""; or None and why there is none, as one line.
    """
    if not is_link_local(address):
        return address, ""
    bare, _, zone = address.partition("%")
    if own_zone and zone:
        return _checked(address, zone)
    interfaces = own_interfaces()
    ours = [name for name, addresses in interfaces.items() if bare in addresses]
    candidates = ours or list(interfaces)
    if len(candidates) > 1:
        candidates = _where_a_neighbour_is(bare, candidates) or candidates
    if len(candidates) == 1:
        return f"{bare}%{candidates[0]}", ""
    reason = "no interface here has such an address"
    if candidates:
        reason = f"may be behind any of {some(sorted(candidates))} here"
    return None, f"{bare} is a link-local address, and {reason}; give it an address that is none"


def _checked(address: str, zone: str) -> tuple[str | None, str]:
    with suppress(OSError, ValueError):
        number = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
        return f"{address.partition('%')[0]}%{socket.if_indextoname(number)}", ""
    return None, f"{address} names an interface that is not here: {zone}"


def _where_a_neighbour_is(bare: str, interfaces: Sequence[str]) -> list[str]:
    """Find the interfaces on which a neighbour answers for an address; asks if none is known."""
    with suppress(OSError):
        indices = {socket.if_nametoindex(name): name for name in interfaces}
        look, end, known = 0, MOST_LOOKS, set[int]()
        while look < end and len(known) < len(indices):
            if look % AGAIN_LOOKS == 0:
                _solicit(bare, indices.keys() - known)
            now_known = neighbours(bare) & indices.keys()
            if now_known and not known:
                end = min(end, look + OTHERS_LOOKS)
            known, look = now_known, look + 1
            time.sleep(LOOK_S)
        return [indices[index] for index in sorted(known)]
    return []


def _solicit(bare: str, indices: Iterable[int]) -> None:
    for index in indices:
        with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as opened:
            opened.sendto(b"", (bare, ANY_PORT, 0, index))


def neighbours(bare: str) -> set[int]:
    """Read the indices of the interfaces on which the kernel knows the neighbour of an address."""
    wanted = (socket.AF_INET6, socket.inet_pton(socket.AF_INET6, bare))
    return {
        index
        for family, index, state, address in _neighbour_table()
        if state & KNOWN_STATES and (family, address) == wanted
    }


def _neighbour_table() -> Iterator[tuple[int, int, int, bytes]]:
    """Read the kernel's table of IPv6 neighbours: family, interface, state, address."""
    body = NDMSG.pack(socket.AF_INET6, 0, 0, 0, 0, 0, 0)
    head = NLMSG.pack(NLMSG.size + len(body), RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as opened:
        opened.settimeout(TABLE_S)
        opened.send(head + body)
        while True:
            data, start = opened.recv(65536), 0
            while start + NLMSG.size <= len(data):
                length, kind, *_ = NLMSG.unpack_from(data, start)
                if kind != RTM_NEWNEIGH or length < NLMSG.size + NDMSG.size:
                    return
                message = data[start + NLMSG.size : start + length]
                family, _, _, index, state, _, _ = NDMSG.unpack_from(message)
                yield family, index, state, _address_of(message[NDMSG.size :])
                start += (length + 3) & ~3


def _address_of(attributes: bytes) -> bytes:
    start = 0
    while start + RTATTR.size <= len(attributes):
        length, kind = RTATTR.unpack_from(attributes, start)
        if kind == NDA_DST:
            return attributes[start + RTATTR.size : start + length]
        start += max(RTATTR.size, (length + 3) & ~3)
    return b""
