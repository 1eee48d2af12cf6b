"""
Which hosts are measured: host names and addresses, checked before anything is sent to them.

Pure. These need not be nodes of a mesh, so a host name may be whatever DNS or /etc/hosts has.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from worker import wire
from worker.errors import ConfigError

#: More hosts than this are a mesh: that is what `ptzmesh run` is for.
MAX_HOSTS = 64


def valid_host(host: str) -> str:
    """
    Pass an address or a host name through, or refuse it.

    Raises:
        ConfigError: Neither an address nor a host name, such as one with a leading dash.

    >>> valid_host("edge-7"), valid_host("10.0.0.1"), valid_host("fe80::1%eth0")
    ('edge-7', '10.0.0.1', 'fe80::1%eth0')
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # A last label of digits only would make 10.0.0.256 a name (RFC 1123 section 2.1).
        last = host.rstrip(".").rpartition(".")[2]
        if len(host) <= 253 and wire.HOSTNAME.fullmatch(host) and not last.isdigit():
            return host
        raise ConfigError(
            f"host ({host[:80]!r}) must be an IPv4 or IPv6 address or a host name"
        ) from None
    return wire.valid_address(host)


def parse_hosts(text: str) -> tuple[str, ...]:
    """
    Read a comma list of hosts; blanks and repetitions are left out, order stays.

    Raises:
        ConfigError: One of them is no host, or there are more than `MAX_HOSTS`.

    >>> parse_hosts("10.0.0.1, edge-7,10.0.0.1,")
    ('10.0.0.1', 'edge-7')
    """
    return distinct(valid_host(host) for part in text.split(",") if (host := part.strip()))


def distinct(hosts: Iterable[str]) -> tuple[str, ...]:
    """
    Give each host once, in order.

    Raises:
        ConfigError: More than `MAX_HOSTS`.
    """
    found = tuple(dict.fromkeys(hosts))
    if len(found) > MAX_HOSTS:
        raise ConfigError(f"hosts ({len(found)}) must be at most {MAX_HOSTS}; see ptzmesh run")
    return found
