"""
Notes in Redis what the lockers' own keys do not say, from the locker records as they go out.

Those say which identifier holds which locker, and for how long still. Under keys of ours is whose
identifier that is, who waited lately, and what was slow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from itertools import groupby
from typing import Any

import msgpack
import redis

from worker.model.measurement import Measurement, Outcome
from worker.wire import keyspace, scripts

ACQUIRE, RELEASE, WAITING = "acquire", "release", "waiting"

#: Waiters are forgotten after this long.
WAITERS_S = 3600
#: Slowest operations that are kept of a day, and for how long.
SLOWEST, NOTES_TTL_S = 20, 2 * 24 * 3600
#: A holder is known for longer than it may hold, so that clocks and pauses do not matter.
HOLDER_MARGIN_S = 24 * 3600


def note(connection: redis.Redis, measurements: Iterable[Measurement]) -> None:
    """Note what these locker records say; doing it again after a RedisError changes nothing."""
    now = datetime.now(timezone.utc)
    for prefix, same in groupby(measurements, key=lambda m: str(m.detail.more["prefix"])):
        noted = [part for measurement in same for part in _notes(measurement, now)]
        keys = [keyspace.waiters_key(prefix), keyspace.slowest_key(prefix, now)]
        scripts.script(connection, "lockers")(keys, [NOTES_TTL_S, WAITERS_S, SLOWEST, *noted])


def _notes(measurement: Measurement, now: datetime) -> Iterator[Any]:
    detail = measurement.detail.more
    if detail["operation"] == ACQUIRE and measurement.outcome is Outcome.OK:
        yield from ("holder", keyspace.holder_key(detail["identifier"]))
        facts = {name: detail[name] for name in ("expire_s", "pid", "lockers")}
        yield int(detail["expire_s"]) + HOLDER_MARGIN_S
        yield msgpack.packb({"node": measurement.source, **facts})
    if detail.get("contended"):
        age_s = (now - measurement.started_at).total_seconds() - detail["elapsed_s"]
        member = [detail["locker"], detail["identifier"], measurement.source]
        yield from ("waiter", f"{max(0.0, age_s):.3f}", msgpack.packb(member))
    if detail["operation"] in (ACQUIRE, RELEASE):
        started_at, outcome = measurement.started_at.timestamp(), measurement.outcome.value
        operation = (detail["operation"], detail["locker"], measurement.source, started_at, outcome)
        yield from ("slow", detail["elapsed_s"], msgpack.packb(operation))
