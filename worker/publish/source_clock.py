"""
Whose clock a record has: its source's, also where its target performed the test.

A node that performs tests stamps them by its own clock. Where another node is the source, the time
is moved to that one's clock, by what the heartbeats of both told of their offsets to Redis'.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import redis

from worker.model.fields import number_or_none
from worker.model.measurement import Measurement
from worker.wire import keyspace
from worker.wire.clock_offset import beyond_doubt_ms
from worker.wire.connection import server

logger = logging.getLogger(__name__)

#: What a record has of its node's clock, by the names that the node's own record has them.
CLOCK_FIELDS = ("clock_offset_ms", "clock_offset_uncertainty_ms")
#: What is known of a node's clock, of `CLOCK_FIELDS`.
Clock = Mapping[str, float]
OFFSET, UNCERTAINTY = CLOCK_FIELDS
#: Redis' own.
REDIS: Clock = {OFFSET: 0.0, UNCERTAINTY: 0.0}
#: Nodes read in one round trip.
AT_A_TIME = 64


def read_clocks(connection: redis.Redis, names: Sequence[str]) -> dict[str, Clock]:
    """Read what nodes' last heartbeats told of their clocks; nothing where they told nothing."""
    found: dict[str, Clock] = {}
    for start in range(0, len(names), AT_A_TIME):
        some, pipeline = names[start : start + AT_A_TIME], connection.pipeline(transaction=False)
        for name in some:
            pipeline.hmget(keyspace.node_key(name), CLOCK_FIELDS)
        for name, values in zip(some, pipeline.execute(), strict=True):
            numbers = zip(CLOCK_FIELDS, map(number_or_none, values), strict=True)
            found[name] = {field: number for field, number in numbers if number is not None}
    return found


def moved(one: Measurement, stamped_by: Clock, source: Clock) -> Measurement:
    """
    Give a measurement with its time by its source's clock, and what is known of that.

    Where either offset is not known, the time stays, and nothing is said of a clock. It stays as
    well where the two clocks may agree, as far as both offsets are certain.
    """
    if OFFSET not in stamped_by or OFFSET not in source:
        return one
    shift_ms = source[OFFSET] - stamped_by[OFFSET]
    doubt_ms = sum(clock.get(UNCERTAINTY, math.inf) for clock in (stamped_by, source))
    if not beyond_doubt_ms(shift_ms, doubt_ms):
        shift_ms = 0.0
    shift = timedelta(milliseconds=shift_ms)
    return replace(one, started_at=one.started_at + shift, detail={**one.detail, **source})


class SourceClock:
    """
    Gives each measurement of one row the clock of its source.

    Attributes:
        performer: The row's own node.
    """

    def __init__(self, connection: redis.Redis, performer: str, own: Clock) -> None:
        """Take who performs the row, and what is known of its clock."""
        self._connection, self.performer = connection, performer
        self._clocks: dict[str, Clock] = {performer: own}

    def look(self, sources: Iterable[str]) -> None:
        """Read the clocks anew, where others are sources; a Redis that is away leaves them."""
        others = {*sources} - {self.performer}
        if not others:
            return
        try:
            self._clocks |= read_clocks(self._connection, [self.performer, *sorted(others)])
        except redis.RedisError as exc:
            logger.log(server.severity(exc), "clocks of sources not read: %s", exc)

    def stamp(self, one: Measurement) -> Measurement:
        """Give a measurement with its source's clock."""
        own = self._clocks[self.performer]
        if one.source == self.performer:
            return replace(one, detail={**one.detail, **own})
        return moved(one, own, self._clocks.get(one.source, {}))
