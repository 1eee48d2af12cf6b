"""How often nodes are heard, and from when a node, or Redis itself, counts as away."""

from __future__ import annotations

import math
from collections.abc import Sequence

import redis

from worker.model.fields import number_or_none
from worker.model.names import NodeName
from worker.wire import keyspace, scripts

#: A node counts as alive for this long after its last heartbeat; three are sent in that time.
ALIVE_S = 30
#: When no node was heard for this long, it was Redis that was away.
REDIS_AWAY_S = ALIVE_S // 2
HEARTBEAT_S = 10
#: How often a sweep gives a sign of life, and looks whether its run was cancelled.
SIGN_S = 4.0


def silent_s(connection: redis.Redis, node: NodeName) -> float:
    """Return the seconds since a node's last heartbeat; infinite when there was none."""
    seen = connection.zscore(keyspace.NODES, node)
    return math.inf if seen is None else scripts.redis_seconds(connection) - seen


def missing_s(connection: redis.Redis, nodes: Sequence[NodeName]) -> dict[NodeName, float]:
    """
    Return for how long each node could have been heard and was not; infinite when it never was.

    That is since its last heartbeat, or since Redis was back from being away. Where no node at all
    was heard for long, Redis is back just now, and nobody is missing yet.
    """
    pipeline = connection.pipeline(transaction=False)
    for name in nodes:
        pipeline.zscore(keyspace.NODES, name)
    pipeline.zrange(keyspace.NODES, 0, 0, desc=True, withscores=True)
    pipeline.get(keyspace.BACK)
    pipeline.time()
    *seen, newest, back, (seconds, micros) = pipeline.execute()
    now, back_at = seconds + micros / 1e6, number_or_none(back)
    last = newest[0][1] if newest else None
    return {
        name: missing_at(now, heard, last, back_at) for name, heard in zip(nodes, seen, strict=True)
    }


def missing_at(now: float, heard: float | None, newest: float | None, back: float | None) -> float:
    """
    Return what `missing_s` does, from what Redis has.

    Args:
        now: As all, in epoch seconds on Redis' clock.
        heard: The node's last heartbeat.
        newest: The last one of any node.
        back: When Redis was back from being away, if that was lately.

    >>> missing_at(100.0, 90.0, 98.0, 95.0), missing_at(100.0, 60.0, 60.0, None)
    (5.0, 0.0)
    """
    if heard is None:
        return math.inf
    if newest is not None and now - newest > REDIS_AWAY_S:
        return 0.0
    return now - max(heard, back or 0.0)
