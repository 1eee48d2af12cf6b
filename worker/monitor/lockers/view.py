"""
Who holds which locker: one look, without a scan of the keyspace.

Lockers are numbered, so their keys are known: GET and PTTL of each, in pipelines. Reads only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import msgpack
import redis

from worker.model.errors import ConfigError
from worker.model.text import iso_utc, one_line
from worker.monitor.guard import forget, log_once
from worker.monitor.lockers.notes import NOTES_TTL_S, SLOWEST, WAITERS_S
from worker.monitor.process import recorder
from worker.wire import keyspace, scripts
from worker.wire.connection import server

#: PTZJEPA's own.
DEFAULT_PREFIX = "file_lockers"
#: Looked at when it is not known how many there are.
DEFAULT_COUNT = 100
MAX_COUNT = 100_000
#: Keys asked for in one pipeline: Redis answers other clients between any two commands.
CHUNK = 500


@dataclass(frozen=True, kw_only=True)
class Locker:
    """
    One locker that is held.

    Attributes:
        locker: Its number.
        identifier: What its key holds: the holder's own random name.
        node: The holder's node; None when the holder is an unchanged PTZJEPA.
        pid: The holder's process.
        held_s: How long it is held, by Redis' clock; None when what it was taken for is unknown.
        left_s: Until it expires; None when it never does.
    """

    locker: int
    identifier: str
    node: str | None
    pid: int | None
    held_s: float | None
    left_s: float | None


@dataclass(frozen=True)
class Waiter:
    """A process that met a locker taken, and how long ago that was; None would take any."""

    locker: int | None
    identifier: str
    node: str
    seen_s: float


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A slow operation of the last two days: `acquire` or `release`; None would take any."""

    operation: str
    locker: int | None
    node: str
    started_at: str
    elapsed_s: float
    outcome: str


@dataclass(frozen=True, kw_only=True)
class LockersView:
    """One look; `looked_at` is how many lockers were asked for, held or not."""

    prefix: str
    looked_at: int
    lockers: tuple[Locker, ...]
    waiters: tuple[Waiter, ...]
    slowest: tuple[Operation, ...]

    def to_json(self) -> dict[str, Any]:
        """Return one JSON-ready object."""
        return asdict(self)


def read_lockers(
    connection: redis.Redis, prefix: str = DEFAULT_PREFIX, count: int | None = None
) -> LockersView:
    """
    Look once.

    Args:
        connection: To the Redis of the lockers.
        prefix: Begin of their keys.
        count: Lockers 0 to `count` - 1 are looked at; None takes the count of a holder's program,
            else `DEFAULT_COUNT`.
    """
    asked = min(DEFAULT_COUNT if count is None else count, MAX_COUNT)
    held = _held(connection, prefix, 0, asked)
    holders = _holders(connection, {identifier for _, identifier, _ in held})
    noted = max((h.get("lockers") or 0 for h in holders.values()), default=0)
    if count is None and asked < noted <= MAX_COUNT:
        more = _held(connection, prefix, asked, noted)
        holders |= _holders(connection, {identifier for _, identifier, _ in more})
        held, asked = held + more, noted
    return LockersView(
        prefix=prefix,
        looked_at=asked,
        lockers=tuple(_locker(*key, holders.get(key[1], {})) for key in held),
        waiters=_waiters(connection, prefix),
        slowest=_slowest(connection, prefix),
    )


def watch_lockers(
    prefix: str = DEFAULT_PREFIX,
    *,
    redis_url: str | None = None,
    count: int | None = None,
    interval_s: float = 2.0,
) -> Iterator[LockersView]:
    """
    Look every `interval_s` for ever; while Redis is away that is logged once, and waited for.

    Args:
        prefix: Begin of the lockers' keys.
        redis_url: Redis of the lockers; None is the one that gets this process's records.
        count: As for `read_lockers`.
        interval_s: Seconds between two looks.
    """
    url = redis_url or recorder().redis_url
    try:
        if url is None:
            raise ConfigError("no Redis is configured; set PTZMESH_REDIS_URL")
        connection = server.connect(url)
    except ConfigError as exc:
        log_once("watch_lockers", "monitor: the lockers cannot be read: %s", exc)
        return
    while True:
        try:
            view = read_lockers(connection, prefix, count)
        except redis.RedisError as exc:
            reason = server.without_secrets(str(exc), url)
            log_once("watch_lockers", "monitor: the lockers cannot be read: %s", reason)
        else:
            forget("watch_lockers")
            yield view
        time.sleep(interval_s)


def _held(
    connection: redis.Redis, prefix: str, first: int, end: int
) -> list[tuple[int, str, float | None]]:
    """Return number, identifier and seconds left of those that are held."""
    held = []
    for start in range(first, end, CHUNK):
        numbers = range(start, min(start + CHUNK, end))
        keys = [f"{prefix}:{number}" for number in numbers]
        pipeline = connection.pipeline(transaction=False)
        pipeline.mget(keys)
        for key in keys:
            pipeline.pttl(key)
        values, *left_ms = pipeline.execute()
        for number, value, left in zip(numbers, values, left_ms, strict=True):
            if value is not None and left != -2:  # -2: it went between the two commands
                identifier = one_line(value.decode(errors="replace"))
                held.append((number, identifier, left / 1000 if left >= 0 else None))
    return held


def _holders(connection: redis.Redis, identifiers: set[str]) -> dict[str, Mapping[str, Any]]:
    """Return what is known of each identifier's process; unknown ones are left out."""
    if not identifiers:
        return {}
    ordered = sorted(identifiers)
    packed = cast("list[bytes | None]", connection.mget([keyspace.holder_key(i) for i in ordered]))
    pairs = zip(ordered, packed, strict=True)
    return {i: facts for i, value in pairs if isinstance(facts := _unpacked(value), dict)}


def _locker(
    number: int, identifier: str, left_s: float | None, holder: Mapping[str, Any]
) -> Locker:
    expire_s, node, pid = (holder.get(name) for name in ("expire_s", "node", "pid"))
    # The key was set to expire then: what has passed of it is how long it is held.
    held_s = None
    if left_s is not None and isinstance(expire_s, (int, float)) and math.isfinite(expire_s):
        held_s = expire_s - left_s
    return Locker(
        locker=number,
        identifier=identifier,
        node=one_line(node) if isinstance(node, str) else None,
        pid=pid if type(pid) is int else None,
        held_s=None if held_s is None or held_s < 0 else held_s,
        left_s=left_s,
    )


def _waiters(connection: redis.Redis, prefix: str) -> tuple[Waiter, ...]:
    now = scripts.redis_seconds(connection)
    key = keyspace.waiters_key(prefix)
    noted: Any = connection.zrange(key, now - WAITERS_S, now, byscore=True, withscores=True)
    waiters = []
    for member, seen_at in reversed(noted):
        match _unpacked(member):
            case [int(locker) | (None as locker), str(identifier), str(node)]:
                identifier, node, seen_s = one_line(identifier), one_line(node), now - seen_at
                waiters.append(Waiter(locker, identifier, node, max(0.0, seen_s)))
    return tuple(waiters)


def _slowest(connection: redis.Redis, prefix: str) -> tuple[Operation, ...]:
    now = datetime.now(timezone.utc)
    pipeline = connection.pipeline(transaction=False)
    for days in range(NOTES_TTL_S // 86400):
        key = keyspace.slowest_key(prefix, now - timedelta(days=days))
        pipeline.zrevrange(key, 0, SLOWEST - 1, withscores=True)
    noted = [pair for day in pipeline.execute() for pair in day]
    ordered = sorted(noted, key=lambda pair: float(pair[1]), reverse=True)
    operations = (_operation(_unpacked(packed), elapsed_s) for packed, elapsed_s in ordered)
    return tuple(filter(None, operations))[:SLOWEST]


def _operation(facts: object, elapsed_s: float) -> Operation | None:
    match facts:
        case [str(name), int(locker) | (None as locker), str(node), float(started), str(outcome)]:
            with suppress(ValueError, OverflowError, OSError):  # no time of this world
                return Operation(
                    operation=one_line(name),
                    locker=locker,
                    node=one_line(node),
                    started_at=iso_utc(datetime.fromtimestamp(started, timezone.utc)),
                    elapsed_s=elapsed_s,
                    outcome=one_line(outcome),
                )
    return None


def _unpacked(packed: bytes | None) -> object:
    """Unpack what we noted; None when it is not there, or not ours."""
    try:
        return None if packed is None else msgpack.unpackb(packed)
    except (ValueError, msgpack.UnpackException):
        return None
