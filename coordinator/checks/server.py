"""Whether the mesh can live on this Redis: the server itself, not what is in it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import redis

from coordinator.checks import check
from coordinator.checks.check import REACHABLE, Area, Check
from worker.model.text import in_bytes, in_time
from worker.wire import scripts
from worker.wire.clock_offset import ClockEstimate, ClockOffset, steady_s
from worker.wire.connection import server
from worker.wire.room import DEFAULTS, memory_used_pct

ROUNDS = 5
#: The lockers take some four round trips a cycle: slower than this they are felt.
SLOW_MS = 100.0
#: `CONFIG SET` holds until the server is started again.
KEEP = "; to keep it over a restart: redis-cli CONFIG REWRITE, or its configuration file"

Info = Mapping[str, Any]

judged = partial(check.judged, Area.REDIS)


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """How long the quickest exchange of the time took, and this machine's clock minus Redis'."""

    rtt_ms: float
    clock: ClockEstimate


def exchange(connection: redis.Redis) -> Exchange:
    """Ask for the time a few times, the first of which opens the connection."""
    scripts.redis_seconds(connection)
    offset, rtts_s = ClockOffset(), []
    for _ in range(ROUNDS):
        sent_s = steady_s()
        clock = offset.add(sent_s, scripts.redis_seconds(connection))
        rtts_s.append(steady_s() - sent_s)
    return Exchange(rtt_ms=min(rtts_s) * 1e3, clock=clock)


def reachable(url: str, quickest: Exchange) -> Check:
    """Judge how far away it is, and whether what goes there can be read on the way."""
    scheme = urlsplit(url).scheme
    way = {"rediss": "TLS", "unix": "unix socket"}.get(scheme, "TCP without TLS")
    return judged(
        REACHABLE,
        f"{server.safe_url(url)}, {quickest.rtt_ms:.2f} ms away, by {way}",
        {"rtt_ms": quickest.rtt_ms, "tls": scheme == "rediss"},
        warn=quickest.rtt_ms > SLOW_MS,
        fix="ptzmesh run --probe redis shows which nodes are slow: some, their path to it; all, "
        "Redis' own host (redis-cli SLOWLOG GET 10)",
    )


def version(info: Info) -> Check:
    """Look at the version, and whether the server takes writes."""
    number = str(info.get("valkey_version") or info.get("redis_version", "unknown"))
    name = "Valkey" if "valkey_version" in info else "Redis"
    old = server.objection({"redis_version": info.get("redis_version", "0")}) is not None
    replica = info.get("role", "master") != "master"
    needed = ".".join(map(str, server.MIN_REDIS[:2]))
    message = f"{name} {number}" + (", a replica: it takes no writes" if replica else "")
    values = {"version": number, "role": info.get("role")}
    fix = "name its master by --redis" if replica else f"upgrade to Redis {needed} or newer"
    return judged("version", message, values, fail=old or replica, fix=fix)


def memory(info: Info, limit_pct: int = DEFAULTS["redis_memory_pct"]) -> Check:
    """Look at used memory beside maxmemory; beyond the mesh's limit results are held back."""
    used, most = int(info["used_memory"]), int(info["maxmemory"])
    values = {"used_memory_bytes": used, "maxmemory_bytes": most or None}
    pct = memory_used_pct(info)
    if pct is None:
        total = int(info.get("total_system_memory", 0))
        of_machine = f" (the machine has {in_bytes(total)})" if total else ""
        return judged("memory", f"{in_bytes(used)} used, no maxmemory{of_machine}", values)
    held = " at which results wait" if pct > limit_pct else ""
    return judged(
        "memory",
        f"{in_bytes(used)} of {in_bytes(most)} used ({pct:.0f} %{held})",
        {**values, "used_memory_pct": pct},
        fail=pct > limit_pct,
        warn=pct > 0.9 * limit_pct,
        fix=more_memory(info, limit_pct),
    )


def more_memory(info: Info, limit_pct: int) -> str:
    """
    Return what lets results in again when Redis' memory is beyond the mesh's limit.

    A `maxmemory` beyond what the machine has would have the kernel end Redis, with the lockers.
    """
    most, total = int(info["maxmemory"]), int(info.get("total_system_memory", 0))
    usual_pct = DEFAULTS["redis_memory_pct"]
    if limit_pct < (memory_used_pct(info) or 0.0) <= 0.9 * usual_pct:
        return f"the limit is low: ptzmesh limits --redis-memory-pct {usual_pct}"
    free = "free memory: `our memory` says what is the mesh's (ptzmesh collect), the rest is not"
    if total < 4 * most:  # twice that, and as much again while a snapshot is written
        has = f" (its machine has {in_bytes(total)})" if total else ""
        return f"{free}; or raise its maxmemory, as far as its machine allows{has}"
    return f"{free}; or: redis-cli CONFIG SET maxmemory {2 * most}{KEEP}"


def eviction(info: Info) -> Check:
    """
    Look at maxmemory-policy: only `noeviction` is safe beside lockers.

    Those of PTZJEPA have an expiry, so that `volatile-*` evicts them while they are held.
    """
    policy = str(info.get("maxmemory_policy", "unknown"))
    evicts = policy not in ("noeviction", "unknown")
    harm = ": when memory is full, it evicts lockers that are held, nodes and runs"
    message, values = policy + (harm if evicts else ""), {"maxmemory_policy": policy}
    fix = f"redis-cli CONFIG SET maxmemory-policy noeviction{KEEP}"
    return judged("eviction", message, values, fail=evicts, fix=fix)


def lua(connection: redis.Redis, url: str) -> Check:
    """Run a script that does nothing: without scripts nothing is published."""
    name = "scripts"
    try:
        server.try_script(connection)
    except redis.ResponseError as exc:
        return not_looked(Area.REDIS, name, exc, url)
    return judged(name, "Lua scripts run")


def persistence(info: Info, saves: str | None) -> Check:
    """Judge what a restart of Redis loses; `saves`, its setting, is None when it is unreadable."""
    append = bool(int(info.get("aof_enabled", 0)))
    values = {"appendonly": append, "save": saves}
    fields = {"aof_last_write_status": "AOF", "rdb_last_bgsave_status": "RDB"}
    broken = [kind for field, kind in fields.items() if info.get(field, "ok") != "ok"]
    if broken:
        message = f"the last write to disk failed ({', '.join(broken)}): Redis may refuse writes"
        fix = _unwritten(is_snapshot=broken == ["RDB"])
        return judged("persistence", message, values, fail=True, fix=fix)
    if append:
        return judged("persistence", "appendonly", values)
    age_s = max(0, int(time.time()) - int(info.get("rdb_last_save_time", 0)))
    if saves or saves is None:
        only = "snapshots only" if saves else "snapshots at most"
        message = f"{only}: a restart loses what is newer (last {in_time(age_s)} ago)"
    else:
        message = "none: a restart loses open runs, and results that are not collected"
    fix = f"redis-cli CONFIG SET appendonly yes{KEEP}"
    return judged("persistence", message, values, warn=True, fix=fix)


def _unwritten(*, is_snapshot: bool) -> str:
    """Return what lets Redis write to its disk again; a snapshot takes memory, too."""
    why = "on the server, its log says why: no room or no right in its folder"
    if not is_snapshot:
        return f"{why}; it takes writes again by itself"
    return f"{why}, or no memory for a copy (sudo sysctl vm.overcommit_memory=1); then: BGSAVE"


def read_saves(connection: redis.Redis) -> str | None:
    """Read Redis' setting `save`; None when this user may not read settings."""
    try:
        return str(connection.config_get("save").get("save", ""))
    except redis.ResponseError:
        return None


def not_looked(area: Area, name: str, exc: redis.RedisError, url: str) -> Check:
    """Return what a check is that Redis refused: for want of a right, or for its own reason."""
    if isinstance(exc, redis.exceptions.NoPermissionError):
        return check.skipped(area, name, f"this user of Redis may not look: {exc}")
    return check.failed(area, name, str(server.unavailable(exc, url)))
