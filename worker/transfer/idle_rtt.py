"""What echoes took in a run's ping phase: a test's time-outs and loaded round trips need it."""

from __future__ import annotations

import logging
from typing import NamedTuple

import redis

from worker.model.errors import WireError
from worker.wire import keyspace, rq_jobs, run_record
from worker.wire.round_trip import Asking, alone, sure
from worker.wire.rows import Row

logger = logging.getLogger(__name__)

#: An idle round trip takes no longer; beyond this it is no measurement of ours.
MAX_RTT_MS = 60_000.0


class IdleRtt(NamedTuple):
    """What echoes took to a target that was at `address` then; the least of three or more."""

    median_ms: float
    least_ms: float | None
    address: str


def read_idle_rtts(connection: redis.Redis, row: Row) -> dict[str, IdleRtt]:
    """Read what the run's ping phase measured from this node, by target."""
    return alone(connection, asking_idle_rtts(row))


def asking_idle_rtts(row: Row) -> Asking[dict[str, IdleRtt]]:
    """Ask for what `read_idle_rtts` returns."""
    key, field = keyspace.run_key(row.run), run_record.rtt_field(row.performer)
    (packed,) = sure((yield lambda pipeline: pipeline.hget(key, field)))
    if packed is None:
        return {}
    try:
        return unpack_rtts(packed)
    except WireError as exc:
        logger.warning("what echoes of the run took is not known: %s", exc)
        return {}


def unpack_rtts(packed: bytes) -> dict[str, IdleRtt]:
    """
    Read round-trip times by target.

    Raises:
        WireError: They are invalid.
    """
    raw = rq_jobs.MsgpackSerializer.loads(packed)
    try:
        return {
            _text(name): IdleRtt(_ms(median), None if least is None else _ms(least), _text(address))
            for name, (median, least, address) in raw.items()
        }
    except (AttributeError, TypeError, ValueError) as exc:
        raise WireError("idle round-trip times are not milliseconds by target") from exc


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _ms(value: object) -> float:
    if not isinstance(value, (int, float)) or type(value) is bool or not 0 <= value < MAX_RTT_MS:
        raise ValueError("no time of ours")
    return value
