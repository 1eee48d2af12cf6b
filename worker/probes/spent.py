"""What tests with two ends have cost, as their records say. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from worker.model.measurement import Measurement, Outcome
from worker.model.options import WIRE_BYTES_PER_BYTE

#: A test that ran and ended so may have moved data that iperf3 did not live to count.
BROKEN = (Outcome.BAD_REPLY, Outcome.TIMEOUT, Outcome.CANCELLED)
WHOLE = (Outcome.OK, Outcome.NO_REPLY)


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What tests cost each of their ends; `is_least` where one broke, and nobody knows the rest."""

    bytes: int
    is_least: bool


def spent(measured: Iterable[Measurement]) -> Spent:
    """
    Add up what tests sent and received at each end at the IP layer, the omitted time too.

    Of a test that broke in the middle its intervals say what had moved until the last of them.
    """
    data, beside, is_least = 0.0, 0, False
    for measurement in measured:
        if (test := measurement.transfer) is None:
            continue
        # Whatever broke off connections that were there did so after some of their data.
        is_least |= bool(test.streams_connected) or measurement.outcome in BROKEN
        is_least |= bool(test.intervals) and measurement.outcome not in WHOLE
        beside += test.other_way_bytes or 0
        data += test.interval_bytes
    return Spent(bytes=math.ceil(data * WIRE_BYTES_PER_BYTE) + beside, is_least=is_least)
