"""What near asks of Redis before its turns: all of it in one round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import redis

from worker.model.names import NodeName
from worker.transfer.idle_rtt import IdleRtt, ask_idle_rtts, idle_rtts_of
from worker.transfer.leases import ask_spent, spent_of
from worker.wire.node_record import FarEnd
from worker.wire.registry import asking_parts
from worker.wire.round_trip import asking_sure, together
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

    def ask(pipeline: redis.client.Pipeline) -> None:
        ask_idle_rtts(pipeline, row)
        ask_spent(pipeline, own)

    far, (idle, *spent) = together(connection, asking_parts(others, FarEnd), asking_sure(ask))
    return Before(
        far=far,
        idle=idle_rtts_of(idle),
        spent_bytes=spent_of(spent, own).get(row.name, 0),
    )
