"""
Which machine and network this process is in: what distinguishes one 192.168.1.100 from another.

Linux; elsewhere nothing is known, and no address is taken for one's own. Facts are read at each
call, which costs microseconds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from worker.model.names import plain_ip

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE = Path("/proc/self/ns/net")
ROUTES, NEIGHBOURS = Path("/proc/net/route"), Path("/proc/net/arp")
ADDRESSES4 = Path("/proc/net/fib_trie")
#: One line an address: 32 hex digits, interface index, prefix length, scope, flags, interface name.
ADDRESSES6 = Path("/proc/net/if_inet6")

#: Flags of a route (linux/route.h): it is in use, and has a gateway.
UP_WITH_GATEWAY = 0x3
#: Of an entry of the ARP table (linux/if_arp.h): the address is known.
COMPLETE = 0x2
#: A MAC address whose first byte has this bit is of somebody's making (IEEE 802, U/L bit): bridges
#: and veths of containers, clouds' gateways. Those of VRRP and HSRP are the same in many places.
LOCALLY_MADE = 0x02
SHARED_MACS = ("00:00:5e:00:0", "00:00:0c:07:ac", "00:00:0c:9f:f")


def boot_id() -> str:
    """Read the id of this machine's present start."""
    return _read(BOOT_ID).strip()


def network_namespace() -> str:
    """Read the inode of this process's network namespace: with `boot_id` it is unique."""
    with suppress(OSError):
        return str(NAMESPACE.stat().st_ino)
    return ""


def gateway_mac() -> str:
    """Read the MAC address of the default IPv4 router, if it tells that network from others."""
    gateway = default_gateway(_read(ROUTES))
    mac = mac_of(gateway, _read(NEIGHBOURS)) if gateway else ""
    return mac if mac and tells_networks_apart(mac) else ""


def default_gateway(routes: str) -> tuple[str, str] | None:
    """
    Find interface and address of the default router in `/proc/net/route`; None without one.

    >>> default_gateway("Iface ...\\neth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0")
    ('eth0', '192.168.1.1')
    """
    gateways = []
    for line in routes.splitlines()[1:]:
        parts = line.split()
        if len(parts) < 8 or parts[1] != "00000000" or parts[7] != "00000000":
            continue
        if int(parts[3], 16) & UP_WITH_GATEWAY == UP_WITH_GATEWAY:
            address = ipaddress.IPv4Address(bytes.fromhex(parts[2])[::-1])
            gateways.append((int(parts[6]), parts[0], str(address)))
    return min(gateways)[1:] if gateways else None


def mac_of(gateway: tuple[str, str], neighbours: str) -> str:
    """Find the MAC address of (interface, address) in `/proc/net/arp`; empty when not known."""
    for line in neighbours.splitlines()[1:]:
        parts = line.split()
        if len(parts) >= 6 and (parts[5], parts[0]) == gateway:
            return parts[3].lower() if int(parts[2], 16) & COMPLETE else ""
    return ""


def tells_networks_apart(mac: str) -> bool:
    """
    Return whether no other router has this MAC address.

    >>> [tells_networks_apart(m) for m in ("3c:37:12:00:00:01", "02:42:ac:11:00:01",
    ...     "00:00:5e:00:01:07", "00:00:00:00:00:00")]
    [True, False, False, False]
    """
    made = int(mac[:2], 16) & LOCALLY_MADE
    return not made and not mac.startswith(SHARED_MACS) and bool(mac.strip("0:"))


def is_own(literal: str, own: Collection[str] | None = None) -> bool:
    """
    Return whether what is sent to a literal address stays in this network namespace.

    `own` is what `own_addresses` returned just now, where many are asked about.
    """
    ip = plain_ip(literal)
    if ip is None or ip.is_loopback:
        return ip is not None
    zone = literal.partition("%")[2]
    named = f"{ip}%{zone}" if zone else str(ip)
    return named in (own_addresses() if own is None else own)


def own_addresses() -> frozenset[str]:
    """Read this namespace's addresses, link-local IPv6 ones also with `%` and their interface."""
    own6 = own_addresses6()
    zoned = (f"{ip}%{interface}" for ip, interface in own6 if ip.is_link_local)
    return frozenset([*_own4(_read(ADDRESSES4)), *(str(ip) for ip, _ in own6), *zoned])


def own_addresses6() -> list[tuple[ipaddress.IPv6Address, str]]:
    """Read this namespace's IPv6 addresses, each with its interface; none without IPv6."""
    lines = [line.split() for line in _read(ADDRESSES6).splitlines()]
    return [(ipaddress.IPv6Address(bytes.fromhex(packed)), name) for packed, *_, name in lines]


def _own4(trie: str) -> Iterator[str]:
    """Read the kernel's table of routes: an address is on one line, what it is on the next ones."""
    address = ""
    for line in trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[1]
        elif words == ["/32", "host", "LOCAL"]:
            yield address


def _read(path: Path) -> str:
    with suppress(OSError, UnicodeError):
        return path.read_text(encoding="ascii")
    return ""
