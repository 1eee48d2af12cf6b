"""Whether the way to Redis swallows large packets: short replies come, and long ones do not."""

from __future__ import annotations

import socket
from typing import Any

import redis

from coordinator.checks.check import REACHABLE, Check
from coordinator.checks.server import judged
from worker.probes.icmp.engine import IcmpNotPermitted
from worker.probes.mtu.echo import echo_mtu
from worker.probes.mtu.path_mtu import in_words


def swallowed(connection: redis.Redis, exc: redis.RedisError) -> Check | None:
    """Find how much passes between here and Redis, after a reply that did not come; else None."""
    host: Any = connection.connection_pool.connection_kwargs.get("host")
    if not isinstance(exc, redis.TimeoutError) or not host:
        return None
    try:
        address = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
        mtu = echo_mtu(address)
    except (OSError, IcmpNotPermitted):
        return None
    if mtu is None or not mtu.is_hole:
        return None
    message = in_words(mtu, "here", f"Redis at {host}").partition("; ")[0]
    link = f"sudo ip link set dev INTERFACE mtu {mtu.largest_bytes}"
    fix = f"here, on the interface that `ip route get {address}` names: {link}"
    values = {"path_mtu_bytes": mtu.largest_bytes}
    return judged(REACHABLE, message, values, fail=True, fix=fix)
