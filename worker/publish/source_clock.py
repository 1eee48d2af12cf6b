"""
Whose clock a record has: its source's, also where its target performed the test.

A node that performs tests stamps them by its own clock. Where another node is the source, the time
is moved to that one's clock, by what the heartbeats of both told of their offsets to Redis'.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import redis

from worker.model.measurement import Measurement
from worker.model.names import NodeName
from worker.wire.clock_offset import beyond_doubt_ms
from worker.wire.connection import server
from worker.wire.node_record import Clock
from worker.wire.registry import read_parts

logger = logging.getLogger(__name__)

#: Redis' own.
REDIS = Clock(clock_offset_ms=0.0, clock_offset_uncertainty_ms=0.0)


def moved(measured: Measurement, stamped_by: Clock, source: Clock) -> Measurement:
    """
    Return a measurement with its time by its source's clock, and what is known of that.

    Where either offset is not known, the time stays, and nothing is said of a clock. It stays as
    well where the two clocks may agree, as far as both offsets are certain.
    """
    if stamped_by.clock_offset_ms is None or source.clock_offset_ms is None:
        return measured
    shift_ms = source.clock_offset_ms - stamped_by.clock_offset_ms
    doubts_ms = [clock.clock_offset_uncertainty_ms for clock in (stamped_by, source)]
    if not beyond_doubt_ms(shift_ms, sum(math.inf if ms is None else ms for ms in doubts_ms)):
        shift_ms = 0.0
    try:
        started_at = measured.started_at + timedelta(milliseconds=shift_ms)
    except OverflowError:  # out of the calendar: anybody may have written the record
        return measured
    return replace(measured, started_at=started_at, detail=replace(measured.detail, **vars(source)))


class SourceClock:
    """Moves each measurement of one row to the clock of its source."""

    def __init__(self, connection: redis.Redis, performer: NodeName, own: Clock) -> None:
        """Take who performs the row, and what is known of its clock."""
        self._connection, self.performer = connection, performer
        self._clocks: dict[NodeName, Clock] = {performer: own}

    def look(self, sources: Iterable[NodeName]) -> None:
        """Read the clocks again, where others are sources; a Redis that is away leaves them."""
        others = {*sources} - {self.performer}
        if not others:
            return
        try:
            names = [self.performer, *sorted(others)]
            self._clocks |= read_parts(self._connection, names, Clock)
        except redis.RedisError as exc:
            logger.log(server.severity(exc), "clocks of sources not read: %s", exc)

    def stamp(self, measured: Measurement) -> Measurement:
        """Return a measurement with its source's clock."""
        source = self._clocks.get(measured.source, Clock())
        return moved(measured, self._clocks[self.performer], source)
