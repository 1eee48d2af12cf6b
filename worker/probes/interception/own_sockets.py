"""
Whether the far end of one of this process's TCP connections is a socket of this machine.

Read from /proc/net/tcp and tcp6 (proc_net(5)), which everybody may; they show the sockets of this
network namespace alone.
"""

from __future__ import annotations

import re
import socket
import struct
from contextlib import suppress
from pathlib import Path

from worker.probes.icmp.series import parse_address

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
#: What an IPv4 address is within an IPv6 one (RFC 4291 section 2.5.5.2).
MAPPED = bytes(10) + b"\xff\xff"


def far_end_here(address: str, port: int, target: str) -> int | None:
    """
    Find the local port of this machine's socket that is connected to our own end, if there is one.

    Args:
        address: Local address of the connection, literal.
        port: Its local port.
        target: The literal address that it was opened to.
    """
    tables = ""
    for table in TABLES:
        with suppress(OSError):  # a kernel without IPv6 has no second one
            tables += table.read_text()
    return connected_to(tables, address, port, target)


def connected_to(tables: str, address: str, port: int, target: str) -> int | None:
    """
    Find in tables of sockets the one whose remote end is an address and port; return its own port.

    The kernel gives one port of ours to several connections that lead elsewhere. One that leads to
    the socket that was found, and not to the target, is the other end of that.

    >>> row = "0: 0100007F:300C 0100007F:C001 01 00000000:00000000"
    >>> connected_to(row, "127.0.0.1", 0xC001, "192.0.2.1")
    12300
    >>> connected_to(row, "127.0.0.1", 0x300C, "192.0.2.1")
    """
    targets, ours = _forms(target), [f"{form}:{port:04X}" for form in _forms(address)]
    for remote in ours:
        if remote not in tables:  # a busy machine has a hundred thousand rows
            continue
        for address_hex, number in re.findall(rf"([0-9A-F]+):([0-9A-F]{{4}}) {remote} ", tables):
            bare = address_hex.removeprefix(MAPPED_HEX)
            ends = [f"{end}:{number}" for end in (bare, MAPPED_HEX + bare)]
            is_other = bare not in targets and any(
                f" {own} {end} " in tables for own in ours for end in ends
            )
            if not is_other:
                return int(number, 16)
    return None


def _forms(address: str) -> list[str]:
    """Write an address as the kernel does, and one of IPv4 also as within IPv6."""
    family, sockaddr = parse_address(address)
    packed = socket.inet_pton(family, sockaddr[0])
    forms = [packed, MAPPED + packed] if family == socket.AF_INET else [packed]
    return [_in_hex(form) for form in forms]


def _in_hex(packed: bytes) -> str:
    """Write an address as the kernel does: words of 32 bits, each in this machine's order."""
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words)


MAPPED_HEX = _in_hex(MAPPED)
