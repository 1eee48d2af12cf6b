"""
Who may test now: both ends of a test and every shared link on its way, or nothing, in one call.

A lease is held by a token, lapses by itself, and is given up by its token only. With it go the
bytes that the test may cost each end, reserved before and settled after. The clock is Redis's.
The two ends are `near`, which asks for the test and connects, and `far`, which answers and listens;
which of them sends the data is another matter: a record's `source` does, see `iperf3.record`.
Names are those of nodes and links: letters, digits, '.', '-' and '_' (`names.valid_name`).

A node that has to wait is written down with what it waits for, and the release of any of that
wakes it: meanwhile it costs nothing but one blocked BLPOP, renewed every `WAIT_SLICE_S`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from worker.model.errors import WireError
from worker.model.fields import number_or_none
from worker.model.names import NodeName
from worker.wire import keyspace, liveness, node_record, scripts
from worker.wire.node_record import FarEnd
from worker.wire.round_trip import Asking, alone, at_once, sure

#: What a crash leaves behind is free after this long; holders renew at a third of it.
LEASE_TTL_S = 15.0
#: A spent day's count is kept for people to read on the next.
BUDGET_TTL_S = 3 * 24 * 3600
#: One call looks at so many far ends, so that it stays far below a millisecond.
MAX_OTHERS = 64
#: BLPOP returns after this long at most, so that a node that waits can stop.
WAIT_SLICE_S = 2.0
#: A registration counts for longer than a waiting node sleeps.
WAITING_TTL_S = 60.0
#: A Redis without other work notices the end of a BLPOP up to 0.1 s late (`hz` 10): the last part
#: of a wait is slept here, with a glance every `GLANCE_S`.
LATE_S = 0.1
GLANCE_S = 0.02


@dataclass(frozen=True, kw_only=True)
class End:
    """
    One end of a test.

    Attributes:
        name: The node.
        links: Shared links on its way to everyone → tests that each carries at once.
        bytes_per_day: Its own budget; None is no limit.
        way_s: What its way to Redis and back takes; 0 where that is not known.
    """

    name: NodeName
    links: Mapping[str, int] = field(default_factory=dict)
    bytes_per_day: int | None = None
    way_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Found:
    """
    What Redis had of both ends as they were taken.

    Attributes:
        near_spent_bytes: What near has spent today, with what this lease reserves.
        far_address: The registry's of far; empty when there is none.
        far_missing_s: For how long far could have been heard and was not.
    """

    near_spent_bytes: int
    far_address: str
    far_missing_s: float


@dataclass(frozen=True, kw_only=True)
class Lease:
    """
    The hold of both ends and the links between them.

    Attributes:
        token: Of whoever holds them.
        near: The end that asks.
        far: The other.
        links: Those between them.
        way_s: What far's way to Redis and back takes; 0 where that is not known.
        asked_at: When it was asked for, on the monotonic clock: it lapses no sooner than its time
            to live after that.
        found: What is known since it was taken; None of one that was not taken here.
    """

    token: str
    near: NodeName
    far: NodeName
    links: tuple[str, ...] = ()
    way_s: float = 0.0
    asked_at: float = field(default_factory=time.monotonic, compare=False)
    found: Found | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """
    What one call of `acquire` brought.

    Attributes:
        lease: What is held now; None when everything is in use, and near waits.
        over_budget: Targets whose budget of today the test would exceed; they were passed over.
        near_over_budget: The same of near itself: nothing was tried.
        near_held: Near itself takes part in another's test.
        lapses_s: Something that is in the way lapses after so long unless renewed; None unknown.
    """

    lease: Lease | None = None
    over_budget: tuple[NodeName, ...] = ()
    near_over_budget: bool = False
    near_held: bool = False
    lapses_s: float | None = None


def new_token() -> str:
    """Return a token that no other test has."""
    return secrets.token_hex(8)


def acquire(
    connection: redis.Redis,
    token: str,
    near: End,
    others: Sequence[End],
    *,
    reserve_bytes: int = 0,
    ttl_s: float = LEASE_TTL_S,
) -> Attempt:
    """
    Take near and the first far end that is free; else be woken when it is worth another call.

    Called again with the same token it returns the same lease: the first answer may have been lost.

    Args:
        token: From `new_token`, one a test.
        near: The end that asks.
        others: The other ends, in the order preferred; only the first `MAX_OTHERS` are tried.
        reserve_bytes: What the test may cost each end, at most.
        ttl_s: The lease lapses after so long unless renewed.
    """
    tried = list(others[:MAX_OTHERS])
    keys = [keyspace.WAITING, keyspace.wake_key(near.name), keyspace.reserved_key(token)]
    keys += [keyspace.NODES, keyspace.BACK]
    arguments: list[Any] = [token, round(ttl_s * 1000), reserve_bytes, near.name]
    arguments += [round(WAITING_TTL_S * 1000), BUDGET_TTL_S, node_record.ADDRESS]
    for end in (near, *tried):
        keys += [keyspace.lease_key(end.name), keyspace.budget_key(end.name)]
        keys += [keyspace.node_key(end.name), *map(keyspace.link_key, end.links)]
        limit = "" if end.bytes_per_day is None else end.bytes_per_day
        arguments += [end.name, limit, len(end.links), *end.links.values()]
    acquire_script = scripts.script(connection, "lease", "lease_acquire")
    asked_at = time.monotonic()
    index, lapses_ms, state, over, *found = acquire_script(keys, arguments)
    lease = None
    if index:
        far = tried[index - 1]
        lease = Lease(
            token=token,
            near=near.name,
            far=far.name,
            links=tuple(sorted({*near.links, *far.links})),
            way_s=far.way_s,
            asked_at=asked_at,
            found=_found(*found),
        )
    return Attempt(
        lease=lease,
        over_budget=tuple(tried[i - 1].name for i in over),
        near_over_budget=state == b"over",
        near_held=state == b"held",
        lapses_s=None if lapses_ms < 0 else lapses_ms / 1000,
    )


def _found(spent: bytes, address: bytes, *moments: bytes) -> Found:
    """Read what the script returns of a lease that was taken."""
    now, heard, newest, back = map(number_or_none, moments)
    return Found(
        near_spent_bytes=int(number_or_none(spent) or 0),
        far_address=address.decode(errors="replace"),
        far_missing_s=liveness.missing_at(now or 0.0, heard, newest, back),
    )


def wait(connection: redis.Redis, node: NodeName, at_most_s: float = WAIT_SLICE_S) -> bool:
    """Sleep until something that the node waits for is given up; False when nothing was."""
    key = keyspace.wake_key(node)
    if at_most_s > 2 * LATE_S:
        timeout_s = min(at_most_s, WAIT_SLICE_S) - LATE_S
        return connection.blpop([key], timeout=timeout_s) is not None
    until = time.monotonic() + at_most_s
    while connection.lpop(key) is None:
        left_s = until - time.monotonic()
        if left_s <= 0:
            return False
        time.sleep(min(left_s, GLANCE_S))
    return True


def renew(
    connection: redis.Redis, lease: Lease, *, ttl_s: float = LEASE_TTL_S, cost_bytes: int = 0
) -> bool:
    """
    Hold on for `ttl_s` more; False when the lease is lost, and the test must end.

    `cost_bytes` is what the test has cost each end so far: so much at least is reserved from now
    on, and so stays counted should nobody settle it.
    """
    arguments = [lease.token, round(ttl_s * 1000), cost_bytes]
    return bool(scripts.script(connection, "lease", "lease_renew")(_keys(lease), arguments))


def release(connection: redis.Redis, lease: Lease, *, spent_bytes: int | None = None) -> bool:
    """
    Give up both ends and the links, settle the bytes, and wake the nodes that wait for them.

    An end that lapsed and is another's by now is left alone. Where `spent_bytes` is None, what was
    reserved is kept.

    Returns:
        Whether far was waiting for its own test with near: it should come next.
    """
    spent = "" if spent_bytes is None else max(0, spent_bytes)
    arguments = [lease.token, spent, round(WAITING_TTL_S * 1000), lease.near, lease.far]
    arguments.append(keyspace.WAKE_PREFIX)
    release_script = scripts.script(connection, "lease", "lease_release")
    return bool(release_script([*_keys(lease), keyspace.WAITING], arguments)[1])


def _keys(lease: Lease) -> list[str]:
    """Return the keys of what is held, as the scripts take them."""
    ends, links = (lease.near, lease.far), map(keyspace.link_key, lease.links)
    leases, budgets = map(keyspace.lease_key, ends), map(keyspace.budget_key, ends)
    return [keyspace.reserved_key(lease.token), *leases, *budgets, *links]


def leave(connection: redis.Redis, node: NodeName) -> None:
    """Wait no longer: no release need wake this node."""
    pipeline = connection.pipeline(transaction=False)
    pipeline.hdel(keyspace.WAITING, node)
    pipeline.delete(keyspace.wake_key(node))
    pipeline.execute()


def holds(connection: redis.Redis, node: NodeName, token: str) -> bool:
    """Whether the node is held by this token: a responder answers such a test and no other."""
    (holder,) = at_once(connection, lambda pipeline: ask_holder(pipeline, node))
    return is_token(holder, token)


def ask_holder(pipeline: redis.client.Pipeline, node: NodeName) -> None:
    """Queue what `is_token` takes the answer of."""
    pipeline.get(keyspace.lease_key(node))


def is_token(holder: bytes | None, token: str) -> bool:
    """Whether what holds a node is this token, as in `holds`."""
    return holder == token.encode()


def spent_today(connection: redis.Redis, nodes: Sequence[NodeName]) -> dict[NodeName, int]:
    """
    Read the bytes that each node spent today (UTC, by Redis's clock), reservations included.

    Raises:
        WireError: What Redis has is not a number.
    """
    return alone(connection, asking_spent(nodes))


def asking_spent(nodes: Sequence[NodeName]) -> Asking[dict[NodeName, int]]:
    """Ask for what `spent_today` returns, or raises."""

    def look(pipeline: redis.client.Pipeline) -> None:
        pipeline.time()
        for node in nodes:
            pipeline.hgetall(keyspace.budget_key(node))

    (seconds, _), *days = sure((yield look))
    today = str(seconds // 86400).encode()
    try:
        return {node: int(spent.get(today, 0)) for node, spent in zip(nodes, days, strict=True)}
    except ValueError as exc:
        raise WireError(f"bytes spent today are no number: {exc}") from exc


def end_of(name: NodeName, far: FarEnd) -> End:
    """Return a node's end by what the registry has of it."""
    return End(name=name, links=far.links, bytes_per_day=far.bytes_per_day, way_s=far.way_s)
