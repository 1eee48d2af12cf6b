"""A node's own address: what it is towards Redis, and whether others reach this machine by it."""

from __future__ import annotations

import socket
from typing import Any

import redis

from worker.names import plain_ip


def resolves(address: str) -> bool:
    """Tell whether this machine's resolver knows an address or a name."""
    try:
        return bool(socket.getaddrinfo(address, None))
    except (OSError, UnicodeError):
        return False


def is_local(address: str) -> bool:
    """
    Tell whether others that connect to an address reach this machine itself.

    They do not when it is a router's, which forwards to this one: then no server can be bound to
    it, and this node is the connecting side of every test.
    """
    try:
        family, kind, _, _, sockaddr = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(sockaddr)
    except OSError:
        return False
    return True


def local_address(connection: redis.Redis) -> str | None:
    """Give the local address of the connection to Redis; None over a unix socket."""
    link: Any = connection.connection_pool.get_connection()
    try:
        name = link._sock.getsockname()
    finally:
        connection.connection_pool.release(link)
    return str(name[0]) if isinstance(name, tuple) else None


def present_address(connection: redis.Redis, before: str) -> str:
    """
    Give the address that this machine has towards Redis now, where it was found so `before`.

    The local end of the connection, which is open. It is of no use to others where it is a loopback
    address, as through a tunnel, or none at all, as over a unix socket: then it stays as it was.
    """
    found = local_address(connection)
    ip = None if found is None else plain_ip(found)
    return before if found is None or ip is None or ip.is_loopback else found
