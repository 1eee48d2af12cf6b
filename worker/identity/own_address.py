"""A node's own address: what it is towards Redis, and whether others reach this machine by it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import redis

from worker.host.link_local import is_link_local, own_interfaces
from worker.host.resolve import resolve
from worker.model.errors import ConfigError
from worker.model.names import IpLiteral, ip_literal, plain_ip
from worker.probes.icmp.series import parse_address


def checked_address(address: str, towards_redis: str | None) -> str:
    """
    Return the address that a person gave a node, a link-local one with its interface, or refuse it.

    A loopback address in figures passes, for nodes that are all on one machine; a name that leads
    to one does not. Debian gives a machine's own name 127.0.1.1 in /etc/hosts: by
    `--address "$(hostname)"` people mean the address that others reach. A name that does not
    resolve passes, as it may later. `towards_redis` is the one to name instead, if known.

    Raises:
        ConfigError: A name that leads to this machine only, or a link-local address that no
            interface has, or not the one that is named.
    """
    if plain_ip(address) is not None:
        return _of_own_interface(address) if is_link_local(address) else address
    for literal in resolve(address).literals:
        if _is_loopback(literal):
            raise ConfigError(
                f"address ({address}) leads to {literal} here, by which no other machine reaches "
                f"this one; {_instead(towards_redis)}"
            )
    return address


def _instead(towards_redis: str | None) -> str:
    if towards_redis is None or _is_loopback(towards_redis):
        return "say --address with the IP address that the other nodes reach it by"
    return f"leave --address out for {towards_redis}, or say it with another IP address"


def _of_own_interface(address: str) -> str:
    bare, _, zone = address.partition("%")
    having = [name for name, addresses in own_interfaces().items() if bare in addresses]
    if not having or (zone and zone not in having):
        on = " and ".join(f"{bare}%{name}" for name in having)
        raise ConfigError(
            f"address ({address}) is link-local, and no such interface of this machine has it; "
            + (f"say --address {on}" if len(having) == 1 else "say one that this machine has")
        )
    if not zone and len(having) > 1:
        raise ConfigError(
            f"address ({address}) is of several interfaces of this machine; "
            f"say one of them: --address {bare}%{having[0]}"
        )
    return f"{bare}%{zone or having[0]}"


def _is_loopback(literal: str) -> bool:
    ip = plain_ip(literal)
    return ip is not None and ip.is_loopback


def led_to(address: str) -> tuple[IpLiteral, ...]:
    """Return the literals of a node's own address as this machine's resolver knows them."""
    return resolve(address, own_zones=True).literals


def own_literals(address: str, literals: Sequence[IpLiteral] | None = None) -> list[IpLiteral]:
    """
    Return the literals of a node's own address that this machine can listen on.

    None of a router that forwards to this machine: then this node is the connecting side of every
    test. And none on loopback but an address that says so itself: see `checked_address`. What the
    address leads to is looked up if not given.
    """
    return [
        literal
        for literal in (led_to(address) if literals is None else literals)
        if (literal == address or not _is_loopback(literal)) and _can_bind(literal)
    ]


def listening_address(address: str, family: int) -> IpLiteral | None:
    """Return the literal of a node's own address on which a test of a version of IP is answered."""
    if plain_ip(address) is not None:
        return ip_literal(address)
    of_family = (ip for ip in own_literals(address) if (":" in ip) is (family == 6))
    return next(of_family, None)


def is_local(address: str, literals: Sequence[IpLiteral] | None = None) -> bool:
    """Whether others that connect to a node's address reach this machine itself."""
    return bool(own_literals(address, literals))


def _can_bind(literal: IpLiteral) -> bool:
    try:
        family, sockaddr = parse_address(literal)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind(sockaddr)
    except OSError:
        return False
    return True


def local_address(connection: redis.Redis) -> str | None:
    """Return the local address of the connection to Redis; None over a unix socket."""
    link: Any = connection.connection_pool.get_connection()
    try:
        name = link._sock.getsockname()
    finally:
        connection.connection_pool.release(link)
    return str(name[0]) if isinstance(name, tuple) else None


def present_address(connection: redis.Redis, before: str) -> str:
    """
    Return the address that this machine has towards Redis now; `before` is what was found earlier.

    The local end of the connection, which is open. It is of no use to others where it is a loopback
    address, as through a tunnel, or none at all, as over a unix socket: then it stays as it was.
    """
    now = local_address(connection)
    ip = None if now is None else plain_ip(now)
    return before if now is None or ip is None or ip.is_loopback else now
