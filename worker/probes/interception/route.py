"""
Which way this machine's kernel sends what goes to an address: over a gateway, or straight to it.

Asked over a raw netlink socket (RTM_GETROUTE, rtnetlink(7)), which needs no right. Rules and routes
by owner, protocol and port are followed as for a connection of this process (Linux 4.19 or newer;
an older kernel overlooks protocol and port).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from worker.probes.icmp.series import parse_address

#: linux/rtnetlink.h and linux/netlink.h.
RTM_NEWROUTE, RTM_GETROUTE, NLM_F_REQUEST = 24, 26, 1
RTN_UNICAST, RTN_LOCAL = 1, 2
RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_VIA = 1, 2, 4, 5, 7, 18
RTA_ENCAP_TYPE, RTA_UID, RTA_IP_PROTO, RTA_DPORT = 21, 25, 27, 29

#: Length, type, flags, sequence number, port (struct nlmsghdr).
MESSAGE = struct.Struct("=IHHII")
#: Family, lengths of destination and source, TOS, table, protocol, scope, type, flags.
ROUTE = struct.Struct("=BBBBBBBBI")
ATTRIBUTE = struct.Struct("=HH")
#: The kernel answers at once; this is for one that is swapped out.
WAIT_S = 1.0
ANSWER_BYTES = 8192


@dataclass(frozen=True)
class Route:
    """
    How the kernel sends to an address.

    Attributes:
        gateway: The router that it is handed to, a link-local one with its `%interface`; None where
            the kernel looks for the address itself on the link, or the address is this machine's.
        source: The address that a connection has at this end.
        is_own: The address is one of this machine's.
        interface: Name of the one that it leaves by; None where that is not said.
    """

    gateway: str | None
    source: str | None
    is_own: bool = False
    interface: str | None = field(default=None, compare=False)


def route_to(address: str, port: int) -> Route | None:
    """
    Look up the way of a TCP connection that is bound to nothing yet; None without a route.

    The kernel looks twice, too: for the source address, and then with it, as rules may tell
    sources apart (ip_route_connect).
    """
    first = _ask(address, port, None)
    if first is None or first.source is None:
        return first
    second = _ask(address, port, first.source)
    return None if second is None else replace(second, source=first.source)


def _ask(address: str, port: int, source: str | None) -> Route | None:
    try:
        family, sockaddr = parse_address(address)
        interface = sockaddr[3] if family == socket.AF_INET6 else 0
        asked = request(family, sockaddr[0].partition("%")[0], port, source, interface)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as opened:
            opened.settimeout(WAIT_S)
            opened.sendto(asked, (0, 0))
            return parse(opened.recv(ANSWER_BYTES))
    except OSError:
        return None


def request(family: int, address: str, port: int, source: str | None, interface: int) -> bytes:
    """Build the question; `interface` is the index that a link-local address is bound to, or 0."""
    packed = socket.inet_pton(family, address)
    attributes = [
        _attribute(RTA_DST, packed),
        _attribute(RTA_UID, struct.pack("=I", os.geteuid())),
        _attribute(RTA_IP_PROTO, bytes([socket.IPPROTO_TCP])),
        _attribute(RTA_DPORT, struct.pack("!H", port)),
    ]
    source_bits = 0
    if source is not None:
        attributes.append(_attribute(RTA_SRC, socket.inet_pton(family, source)))
        source_bits = len(packed) * 8
    if interface:
        attributes.append(_attribute(RTA_OIF, struct.pack("=I", interface)))
    body = ROUTE.pack(family, len(packed) * 8, source_bits, 0, 0, 0, 0, 0, 0)
    body += b"".join(attributes)
    return MESSAGE.pack(MESSAGE.size + len(body), RTM_GETROUTE, NLM_F_REQUEST, 1, 0) + body


def parse(answer: bytes) -> Route | None:
    """
    Read the kernel's answer; None when it is not a route.

    A route that wraps packets up (RTA_ENCAP_TYPE) has its gateway at the far end of a tunnel: it
    counts as none.
    """
    if len(answer) < MESSAGE.size + ROUTE.size:
        return None
    length, kind, _, _, _ = MESSAGE.unpack_from(answer)
    if kind != RTM_NEWROUTE or length > len(answer):
        return None
    family, _, _, _, _, _, _, route_type, _ = ROUTE.unpack_from(answer, MESSAGE.size)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    values = dict(_attributes(answer[MESSAGE.size + ROUTE.size : length]))
    interface = _interface(values.get(RTA_OIF, b""))
    gateway = None
    if route_type == RTN_UNICAST and RTA_ENCAP_TYPE not in values:
        gateway = _gateway(family, values)
        if gateway and gateway.startswith("fe80:") and interface:
            gateway = f"{gateway}%{interface}"
    source = _text(family, values.get(RTA_PREFSRC))
    return Route(gateway, source, is_own=route_type == RTN_LOCAL, interface=interface)


def _gateway(family: int, values: dict[int, bytes]) -> str | None:
    if RTA_GATEWAY not in values and len(via := values.get(RTA_VIA, b"")) > 2:
        # An IPv4 route over an IPv6 gateway (RFC 5549): its family, then its address.
        return _text(struct.unpack_from("=H", via)[0], via[2:])
    return _text(family, values.get(RTA_GATEWAY))


def _interface(raw: bytes) -> str | None:
    if len(raw) != 4:
        return None
    (index,) = struct.unpack("=I", raw)
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def _text(family: int, raw: bytes | None) -> str | None:
    sizes: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
    if raw is None or len(raw) != sizes.get(family):
        return None
    return socket.inet_ntop(family, raw)


def _attribute(kind: int, value: bytes) -> bytes:
    filler = bytes(-len(value) % 4)
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + filler


def _attributes(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each attribute's type and value; ends where one makes no sense."""
    at = 0
    while at + ATTRIBUTE.size <= len(raw):
        length, kind = ATTRIBUTE.unpack_from(raw, at)
        if length < ATTRIBUTE.size or at + length > len(raw):
            return
        yield kind & 0x3FFF, raw[at + ATTRIBUTE.size : at + length]
        at += length + -length % 4
