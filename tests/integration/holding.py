"""Leases as the tests of leases, turns and budgets take them."""

from __future__ import annotations

from typing import Any

import redis

from worker.transfer import leases
from worker.transfer.leases import Attempt, End, Lease

A, B, C = End(name="a"), End(name="b"), End(name="c")


def take(connection: redis.Redis, near: End, *others: End, **how: Any) -> Attempt:
    return leases.acquire(connection, leases.new_token(), near, others, **how)


def held(connection: redis.Redis, near: End, *others: End, **how: Any) -> Lease:
    lease = take(connection, near, *others, **how).lease
    assert lease is not None
    return lease


def keys(connection: redis.Redis, pattern: str = "ptzmesh:lease:*") -> set[bytes | str]:
    return set(connection.keys(pattern))
