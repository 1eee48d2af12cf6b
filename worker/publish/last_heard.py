"""
When the other node of a pair was last heard, said in the records of pairs that had no answer.

Silence of the network and of a node that has just died look alike: only the registry tells them
apart, and it counts a node as lost after half a minute. Until then it knows this much.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import redis

from worker.model.measurement import Measurement, Outcome
from worker.model.names import NodeName
from worker.wire import liveness
from worker.wire.connection import server

logger = logging.getLogger(__name__)

#: What a pair may read whose other node has just died.
UNANSWERED = frozenset(
    {Outcome.NO_REPLY, Outcome.UNREACHABLE, Outcome.REFUSED, Outcome.TIMEOUT, Outcome.BAD_REPLY}
)
#: A heartbeat that is on its way, or late on a busy machine, is not missing yet.
OVERDUE_S = liveness.HEARTBEAT_S + 4.0


def with_last_heard(
    connection: redis.Redis, batch: Sequence[Measurement], performer: NodeName
) -> list[Measurement]:
    """Add to a row's measurements when the other node was last heard, where that is overdue."""
    names = {_other(each, performer) for each in batch if each.outcome in UNANSWERED}
    names.discard(performer)
    if not names:
        return list(batch)
    try:
        silent_s = liveness.missing_s(connection, sorted(names))
    except redis.RedisError as exc:
        logger.log(server.severity(exc), "it is not known who was heard: %s", exc)
        return list(batch)
    others = ((each, _other(each, performer)) for each in batch)
    return [_with_silence(each, other, silent_s.get(other, 0.0)) for each, other in others]


def _other(measured: Measurement, performer: NodeName) -> NodeName:
    return measured.source if measured.target == performer else NodeName(measured.target)


def _with_silence(measured: Measurement, name: str, silent_s: float) -> Measurement:
    # Infinite: the registry knows nothing of it.
    if measured.outcome not in UNANSWERED or not OVERDUE_S < silent_s < math.inf:
        return measured
    # What helps is behind a semicolon, and stays there.
    error, mark, help_ = measured.error.partition("; ")
    heard = f"{name} was last heard {silent_s:.0f} s ago"
    return replace(measured, error=f"{error}, and {heard}{mark}{help_}")
