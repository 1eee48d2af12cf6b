"""A lock as PTZJEPA's lockers take it and give it back, and what is said of many such cycles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import cast

import redis

from worker.model.rtt import percentile

PAUSE_S = 0.001


def cycles_ms(connection: redis.Redis, until: Callable[[], bool]) -> list[float]:
    """Take and give back one lock, again and again; give what each cycle took, in ms."""
    cycles = []
    while not until():
        begun = time.perf_counter()
        assert connection.set("bench:lock", "me", nx=True, ex=30)
        with connection.pipeline() as pipeline:
            pipeline.watch("bench:lock")  # type: ignore[no-untyped-call]  # untyped in redis-py
            assert cast("bytes", pipeline.get("bench:lock")) == b"me"
            pipeline.multi()
            pipeline.delete("bench:lock")
            pipeline.execute()
        cycles.append((time.perf_counter() - begun) * 1e3)
        time.sleep(PAUSE_S)
    return cycles


def rank_ms(values: Sequence[float], percent: float) -> float:
    """Give a percentile of times, of which there must be some."""
    found = percentile(values, percent)
    assert found is not None
    return found
