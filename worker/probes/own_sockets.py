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

from worker.probes.icmp_series import parse_address

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
#: What an IPv4 address is within an IPv6 one (RFC 4291 section 2.5.5.2).
MAPPED = bytes(10) + b"\xff\xff"


def far_end_here(address: str, port: int) -> int | None:
    """
    Give the local port of this machine's socket that is connected to one of our own ends.

    Args:
        address: Local address of the connection, literal.
        port: Its local port.

    Returns:
        None when no socket of this network namespace is.
    """
    for table in TABLES:
        with suppress(OSError):  # a kernel without IPv6 has no second one
            found = connected_to(table.read_text(), address, port)
            if found is not None:
                return found
    return None


def connected_to(table: str, address: str, port: int) -> int | None:
    """
    Find in a table of sockets the one whose remote end is an address and port; give its own port.

    >>> row = "0: 0100007F:300C 0100007F:C001 01 00000000:00000000"
    >>> connected_to(row, "127.0.0.1", 0xC001), connected_to(row, "127.0.0.1", 0x300C)
    (12300, None)
    """
    family, sockaddr = parse_address(address)
    packed = socket.inet_pton(family, sockaddr[0])
    forms = [packed, MAPPED + packed] if family == socket.AF_INET else [packed]
    for form in forms:
        remote = f"{_in_hex(form)}:{port:04X}"
        # Found as a text first: a busy machine has a hundred thousand rows.
        found = re.search(rf":([0-9A-F]{{4}}) {remote} ", table) if remote in table else None
        if found is not None:
            return int(found[1], 16)
    return None


def _in_hex(packed: bytes) -> str:
    """Write an address as the kernel does: words of 32 bits, each in this machine's order."""
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words)
