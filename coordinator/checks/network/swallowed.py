"""Whether the way to Redis swallows large packets: short replies come, and long ones do not."""

from __future__ import annotations

import socket
from typing import Any

import redis

from coordinator.checks.check import REACHABLE, Area, Check, judged
from worker.probes.icmp.engine import IcmpNotPermitted
from worker.probes.mtu.echo import echo_mtu
from worker.probes.mtu.path_mtu import PathMtu, in_words


def swallowed(connection: redis.Redis, exc: redis.RedisError) -> Check | None:
    """Say how much passes between here and Redis, after a reply that did not come; else None."""
    host: Any = connection.connection_pool.connection_kwargs.get("host")
    if not isinstance(exc, redis.TimeoutError) or not host:
        return None
    address, found = _look(str(host))
    if found is None or not found.is_hole:
        return None
    what = in_words(found, "here", f"Redis at {host}").partition("; ")[0]
    link = f"sudo ip link set dev INTERFACE mtu {found.largest_bytes}"
    return judged(
        Area.REDIS,
        REACHABLE,
        what,
        {"path_mtu_bytes": found.largest_bytes},
        fail=True,
        mend=f"here, on the interface that `ip route get {address}` names: {link}",
    )


def _look(host: str) -> tuple[str, PathMtu | None]:
    try:
        address = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
        return address, echo_mtu(address)
    except (OSError, IcmpNotPermitted):
        return host, None
