"""
When the other node of a pair was last heard, said in the records of pairs that had no answer.

Silence of the network and of a node that has just died look alike: only the registry tells them
apart, and it counts a node as lost after half a minute. Until then it knows this much.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import redis

from worker import keyspace, wire
from worker.fields import number_or_none
from worker.measurement import Measurement, Outcome

logger = logging.getLogger(__name__)

#: What a pair may read whose other node has just died.
UNANSWERED = frozenset(
    {Outcome.NO_REPLY, Outcome.UNREACHABLE, Outcome.REFUSED, Outcome.TIMEOUT, Outcome.BAD_REPLY}
)
#: A heartbeat that is on its way, or late on a busy machine, is not missing yet.
OVERDUE_S = wire.HEARTBEAT_S + 4.0


def with_last_heard(
    connection: redis.Redis, batch: Sequence[Measurement], performer: str
) -> list[Measurement]:
    """
    Give measurements with when the other node was last heard, where that is overdue.

    Args:
        connection: To Redis; should it be away, nothing is said.
        batch: Measurements of one row.
        performer: The row's own node.
    """
    names = {_other(one, performer) for one in batch if one.outcome in UNANSWERED}
    names.discard(performer)
    if not names:
        return list(batch)
    try:
        silent_s = _silent_s(connection, sorted(names))
    except redis.RedisError as exc:
        logger.log(wire.severity(exc), "it is not known who was heard: %s", exc)
        return list(batch)
    return [_told(one, _other(one, performer), silent_s) for one in batch]


def _silent_s(connection: redis.Redis, names: Sequence[str]) -> dict[str, float]:
    """
    Give for how long those were not heard that are overdue.

    Nobody is while Redis itself was away until just now: see `wire.missing_s`.
    """
    pipeline = connection.pipeline(transaction=False)
    for name in names:
        pipeline.zscore(keyspace.NODES, name)
    pipeline.zrange(keyspace.NODES, 0, 0, desc=True, withscores=True)
    pipeline.get(keyspace.BACK)
    pipeline.time()
    *seen, newest, back, (seconds, micros) = pipeline.execute()
    now, back_at = seconds + micros / 1e6, number_or_none(back) or 0.0
    if not newest or now - newest[0][1] > wire.REDIS_AWAY_S:
        return {}
    known = {name: at for name, at in zip(names, seen, strict=True) if at is not None}
    return {name: now - at for name, at in known.items() if now - max(at, back_at) > OVERDUE_S}


def _other(one: Measurement, performer: str) -> str:
    return one.source if one.target == performer else one.target


def _told(one: Measurement, name: str, silent_s: dict[str, float]) -> Measurement:
    if one.outcome not in UNANSWERED or name not in silent_s:
        return one
    # What helps is behind a semicolon, and stays there.
    what, mark, helps = one.error.partition("; ")
    heard = f"{name} was last heard {silent_s[name]:.0f} s ago"
    return replace(one, error=f"{what}, and {heard}{mark}{helps}")
