"""What near asks of Redis before its turns: all of it in one round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import redis

from worker.model.names import NodeName
from worker.transfer.idle_rtt import IdleRtt, asking_idle_rtts
from worker.transfer.leases import asking_spent
from worker.wire.node_record import FarEnd
from worker.wire.registry import asking_parts
from worker.wire.round_trip import together
from worker.wire.rows import Row


@dataclass(frozen=True)
class Before:
    """
    What is known before the tests of a row.

    Attributes:
        far: By name, what the registry has of the other ends; one that is invalid is absent.
        idle: What echoes of this run took, by target.
        spent_bytes: What tests cost this node today, where it has a budget.
    """

    far: Mapping[NodeName, FarEnd]
    idle: Mapping[str, IdleRtt]
    spent_bytes: int


def read_before(
    connection: redis.Redis, row: Row, others: Sequence[NodeName], *, has_budget: bool
) -> Before:
    """
    Read what is known of a row's own node and of the other ends of its tests.

    Raises:
        WireError: What Redis has of this node's budget makes no sense.
    """
    own = [row.name] if has_budget else []
    far, idle, spent = together(
        connection, asking_parts(others, FarEnd), asking_idle_rtts(row), asking_spent(own)
    )
    return Before(far=far, idle=idle, spent_bytes=spent.get(row.name, 0))
