"""
What a node may measure: an address of one other machine, and no address that only seems to be one.

Names are looked up once, here, and the probes get what was looked at: whoever answers for a name
cannot send them elsewhere a moment later. Linux tells which addresses are a subnet's broadcast.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import icmplib

from worker.names import IP, not_of_one_machine, plain_ip

#: Names looked up at a time: a silent name server holds each for seconds.
LOOKUPS_AT_A_TIME = 16
#: The discard port; nothing is sent to it.
ANY_PORT = 9


@dataclass(frozen=True)
class Looked:
    """
    An address that was looked up.

    Attributes:
        literal: The one to measure; None when the name does not resolve.
        objection: Why it is not measured; None when it may be.
    """

    literal: str | None
    objection: str | None


def look_up(addresses: Collection[str], own: str) -> Mapping[str, Looked]:
    """
    Look up addresses, and judge each; call it where no other process waits for the answer.

    Args:
        addresses: Addresses or names.
        own: The measuring node's own address: one on loopback may measure others there.
    """
    distinct = sorted({own, *addresses})
    with ThreadPoolExecutor(LOOKUPS_AT_A_TIME) as threads:
        found = dict(zip(distinct, threads.map(_literals, distinct), strict=True))
    at_home = any(ip.is_loopback for ip in map(plain_ip, found[own]) if ip is not None)
    return {address: _judge(found[address], at_home) for address in addresses}


def _literals(address: str) -> list[str]:
    """Give every address that a name has, the one to measure first; itself when it is none."""
    if plain_ip(address) is not None:
        return [address]
    with suppress(icmplib.NameLookupError, UnicodeError, OSError):
        first = [str(one) for one in icmplib.resolve(address)[:1]]
        rest = {str(found[4][0]) for found in socket.getaddrinfo(address, None)}
        return [*first, *sorted(rest - set(first))]
    return []


def _judge(literals: list[str], at_home: bool) -> Looked:
    for literal in literals:
        ip = plain_ip(literal)
        reason = "no address" if ip is None else _objection(literal, ip, at_home)
        if reason is not None:
            return Looked(literal, f"{literal} is {reason}")
    return Looked(literals[0] if literals else None, None)


def _objection(literal: str, ip: IP, at_home: bool) -> str | None:
    if ip.is_loopback and not at_home:
        return "a loopback address, which from here is this node itself"
    reason = not_of_one_machine(ip) or ("broadcast" if is_subnet_broadcast(literal) else None)
    return None if reason is None else f"a {reason} address"


def is_subnet_broadcast(address: str) -> bool:
    """
    Tell whether an address is the broadcast address of a subnet that this machine is on.

    The kernel refuses to connect a socket to one that has not asked for broadcast (socket(7)). Of a
    subnet elsewhere nobody can tell; routers drop what is sent to those (RFC 2644).
    """
    if ":" in address:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        if opened.connect_ex((address, ANY_PORT)) != errno.EACCES:
            return False
        # A route that is prohibited is refused in the same way, but to any socket.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return opened.connect_ex((address, ANY_PORT)) != errno.EACCES
