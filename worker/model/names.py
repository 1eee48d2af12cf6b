"""
What passes for a name or an address of a node, and for a target of a measurement.

Pure. Names and addresses come from people, from Redis and from other programs; all of them are
checked here before they are in a key, in an argument of iperf3 or on a terminal.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import NewType

from worker.model.errors import ConfigError

#: As RFC 1123 has it, and with `_`, which /etc/hosts and Compose allow and resolvers take.
HOSTNAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
#: IFNAMSIZ is 16, its last byte a zero.
_SCOPE = re.compile(r"[A-Za-z0-9._-]{1,15}")
#: What inet_aton(3) takes for a number: a name that ends so is an address in disguise.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")

_PORTS = re.compile(r"(\d{1,5})-(\d{1,5})")

MAX_HOSTNAME_CHARS = 253
#: What the one measurement of a `redis` row has as its target.
REDIS_TARGET = "redis"
BROADCAST = ipaddress.IPv4Address("255.255.255.255")

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Of a node; made where a text is checked. What a probe measures may be a host by its name, too.
NodeName = NewType("NodeName", str)
#: Of a run; sorts by time.
RunId = NewType("RunId", str)
#: Of records that a program makes of itself, or a test from here.
NO_NODE, NO_RUN = NodeName(""), RunId("")
#: An address in figures, a link-local one with its interface; no name, so nobody looks it up.
IpLiteral = NewType("IpLiteral", str)

#: Prefixes of IPv6 whose last 32 bits are an IPv4 address to which somebody sends on: compatible
#: (RFC 4291), and translated by NAT64 (RFC 6052, and the usual ones of RFC 8215).
WITH_IPV4_LAST = tuple(
    ipaddress.IPv6Network(text) for text in ("::/96", "64:ff9b::/96", "64:ff9b:1::/48")
)

#: Many networks have them: RFC 1918, RFC 4193, RFC 6598 (a carrier's NAT), RFC 3927, RFC 4291.
_SHARED = "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7 100.64.0.0/10 169.254.0.0/16 fe80::/10"
SHARED_NETWORKS = tuple(map(ipaddress.ip_network, _SHARED.split()))


def valid_name(name: str) -> NodeName:
    """
    Pass a node name through, or refuse it.

    Raises:
        ConfigError: Not 1 to 64 letters, digits, dots, dashes or underscores, ending in
            a letter or digit at both sides.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"node name ({name[:80]!r}) must be 1 to 64 letters, digits, '.', '-' or '_', "
            "beginning and ending with a letter or digit"
        )
    return NodeName(name)


def own_name(name: str) -> NodeName:
    """
    Pass the name that a node wants through, or refuse it.

    Raises:
        ConfigError: It is no name, or a word of ours, which its results would be taken for.
    """
    if name == REDIS_TARGET:
        raise ConfigError(
            f"node name ({name}) is what the probe of Redis calls its target; choose another --name"
        )
    return valid_name(name)


def valid_address(address: str) -> str:
    """
    Pass an IPv4 or IPv6 address or a host name through, or refuse it.

    Raises:
        ConfigError: Neither of these, such as one with a leading dash; an IPv4 address written as
            no dotted quad (`0177.0.0.1`, `0x7f000001`, `::ffff:10.0.0.1`); or no address of one
            machine (multicast, broadcast, unspecified).

    >>> valid_address("edge-7"), valid_address("10.0.0.1"), valid_address("fe80::1%eth0")
    ('edge-7', '10.0.0.1', 'fe80::1%eth0')
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        # A last label that is a number would make 10.0.0.256 a name (RFC 1123 section 2.1), and
        # the resolver would take 0x7f000001 for 127.0.0.1.
        last = address.rstrip(".").rpartition(".")[2]
        is_name = len(address) <= MAX_HOSTNAME_CHARS and HOSTNAME.fullmatch(address)
        if is_name and not _NUMBER.fullmatch(last):
            return address
        raise ConfigError(
            f"address ({address[:80]!r}) must be an IPv4 or IPv6 address or a host name, "
            "without a port"
        ) from None
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id is not None and not (ip.is_link_local and _SCOPE.fullmatch(ip.scope_id)):
            raise ConfigError(
                f"address ({address[:80]!r}) must name an interface after its %, "
                "and only a link-local address has one"
            )
        if ip.ipv4_mapped is not None:
            raise ConfigError(f"address ({address}) must be written as {ip.ipv4_mapped}")
    reason = not_of_one_machine(ip)
    if reason is not None:
        raise ConfigError(f"address ({address}) is not the address of one machine: {reason}")
    return address


def plain_ip(address: str) -> IP | None:
    """
    Read a literal address as what it really is; None when it is a name.

    >>> plain_ip("::ffff:127.0.0.1"), plain_ip("fe80::1%eth0"), plain_ip("edge-7")
    (IPv4Address('127.0.0.1'), IPv6Address('fe80::1'), None)
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return ip if mapped is None else mapped


def ip_literal(text: str) -> IpLiteral:
    """
    Pass an address in figures through.

    Raises:
        ValueError: It is a name, or nothing.

    >>> ip_literal("fe80::1%eth0")
    'fe80::1%eth0'
    """
    ipaddress.ip_address(text)
    return IpLiteral(text)


def reached_by(address: str) -> Iterator[IP]:
    """
    Yield every address that a packet to a literal may end at: itself, and the IPv4 one within it.

    >>> [str(ip) for ip in reached_by("64:ff9b::127.0.0.1")]
    ['64:ff9b::7f00:1', '127.0.0.1']
    >>> [str(ip) for ip in reached_by("2002:7f00:1::1")]
    ['2002:7f00:1::1', '127.0.0.1']
    """
    ip = plain_ip(address)
    if ip is None:
        return
    yield ip
    if isinstance(ip, ipaddress.IPv4Address) or int(ip) <= 1:  # `::` and `::1` are what they are
        return
    if ip.sixtofour is not None:
        yield ip.sixtofour
    if ip.teredo is not None:
        yield from ip.teredo
    if any(ip in prefix for prefix in WITH_IPV4_LAST):
        yield ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)


def not_of_one_machine(ip: IP) -> str | None:
    """
    Return what else than one machine's an address is; None when it may be one machine's.

    A subnet's broadcast address is not known from the address alone (see `targets`).
    """
    if ip.is_multicast:
        return "multicast"
    if ip.is_unspecified:
        return "unspecified"
    return "broadcast" if ip == BROADCAST else None


def parse_ports(text: str) -> tuple[int, int]:
    """
    Read a range of ports such as `5201-5216`.

    Raises:
        ConfigError: It is of another form.

    >>> parse_ports("5201-5216")
    (5201, 5216)
    """
    match = _PORTS.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"ports ({text[:40]!r}) must look like 5201-5216")
    return int(match[1]), int(match[2])


def is_of_shared_network(address: str) -> bool:
    """
    Whether machines of different networks may have the same address.

    >>> [is_of_shared_network(a) for a in ("192.168.1.9", "100.64.1.2", "fe80::1%eth0", "8.8.8.8")]
    [True, True, True, False]
    """
    ip = plain_ip(address)
    return ip is not None and any(ip in network for network in SHARED_NETWORKS)
