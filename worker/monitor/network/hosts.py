"""
Which hosts are measured: host names and addresses, checked before anything is sent to them.

Pure. These need not be nodes of a mesh, so a host name may be whatever DNS or /etc/hosts has.
"""

from __future__ import annotations

from collections.abc import Iterable

from worker.model.errors import ConfigError
from worker.model.names import valid_address

#: More hosts than this are a mesh: that is what `ptzmesh run` is for.
MAX_HOSTS = 64


def parse_hosts(text: str) -> tuple[str, ...]:
    """
    Read a comma list of hosts; blanks and repetitions are left out, order stays.

    Raises:
        ConfigError: One of them is invalid, or there are more than `MAX_HOSTS`.

    >>> parse_hosts("10.0.0.1, edge-7,10.0.0.1,")
    ('10.0.0.1', 'edge-7')
    """
    return distinct(valid_address(host) for part in text.split(",") if (host := part.strip()))


def distinct(hosts: Iterable[str]) -> tuple[str, ...]:
    """Drop repetitions; order stays; more than `MAX_HOSTS` are a ConfigError."""
    unique = tuple(dict.fromkeys(hosts))
    if len(unique) > MAX_HOSTS:
        raise ConfigError(f"hosts ({len(unique)}) must be at most {MAX_HOSTS}; see ptzmesh run")
    return unique
