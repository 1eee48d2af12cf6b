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
from typing import Any, cast

import redis

from worker.model.errors import WireError
from worker.model.names import NodeName
from worker.wire import keyspace, scripts
from worker.wire.node_record import Limits
from worker.wire.registry import read_parts

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
    """

    name: NodeName
    links: Mapping[str, int] = field(default_factory=dict)
    bytes_per_day: int | None = None


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The hold of both ends and the links between them."""

    token: str
    near: NodeName
    far: NodeName
    links: tuple[str, ...] = ()


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
        connection: To Redis.
        token: From `new_token`, one a test.
        near: The end that asks.
        others: The other ends, in the order preferred; only the first `MAX_OTHERS` are tried.
        reserve_bytes: What the test may cost each end, at most.
        ttl_s: The lease lapses after so long unless renewed.
    """
    tried = list(others[:MAX_OTHERS])
    keys = [keyspace.WAITING, keyspace.wake_key(near.name), keyspace.reserved_key(token)]
    arguments: list[Any] = [token, round(ttl_s * 1000), reserve_bytes, near.name]
    arguments += [round(WAITING_TTL_S * 1000), BUDGET_TTL_S]
    for end in (near, *tried):
        keys += [keyspace.lease_key(end.name), keyspace.budget_key(end.name)]
        keys += map(keyspace.link_key, end.links)
        limit = "" if end.bytes_per_day is None else end.bytes_per_day
        arguments += [limit, len(end.links), *end.links.values()]
    acquire_script = scripts.script(connection, "lease", "lease_acquire")
    index, lapses_ms, state, over = acquire_script(keys, arguments)
    lease = None
    if index:
        far = tried[index - 1]
        links = tuple(sorted({*near.links, *far.links}))
        lease = Lease(token=token, near=near.name, far=far.name, links=links)
    return Attempt(
        lease=lease,
        over_budget=tuple(tried[i - 1].name for i in over),
        near_over_budget=state == b"over",
        near_held=state == b"held",
        lapses_s=None if lapses_ms < 0 else lapses_ms / 1000,
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
    return cast("bytes | None", connection.get(keyspace.lease_key(node))) == token.encode()


def spent_today(connection: redis.Redis, nodes: Sequence[NodeName]) -> dict[NodeName, int]:
    """
    Read the bytes that each node spent today (UTC, by Redis's clock), reservations included.

    Raises:
        WireError: What Redis has is not a number.
    """
    day = int(scripts.redis_seconds(connection) // 86400)
    pipeline = connection.pipeline(transaction=False)
    for node in nodes:
        pipeline.hget(keyspace.budget_key(node), str(day))
    try:
        return {node: int(raw or 0) for node, raw in zip(nodes, pipeline.execute(), strict=True)}
    except ValueError as exc:
        raise WireError(f"bytes spent today are no number: {exc}") from exc


def read_ends(connection: redis.Redis, names: list[NodeName]) -> dict[NodeName, End]:
    """Read the shared links and daily budgets of nodes; one of which they are invalid is absent."""
    limits = read_parts(connection, names, Limits)
    return {name: End(name=name, **vars(own)) for name, own in limits.items()}
