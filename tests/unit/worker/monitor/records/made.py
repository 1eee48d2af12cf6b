"""Records made for tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from worker.model.detail import Detail
from worker.model.measurement import Measurement
from worker.monitor.records.record import PING, record

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=timezone.utc)


def ping(number: int = 0, **changes: Any) -> Measurement:
    """Give a ping record of the hub."""
    made = record(probe=PING, target="hub", address="10.0.0.1", started_at=AT, latency_ms=1.5)
    return replace(made, detail=Detail(more={"number": number}), **changes)
