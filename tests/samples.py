"""Measurements and streams made for tests, the same ones for the same seed."""

from __future__ import annotations

import csv
import importlib.util
import random
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import redis

from worker.model.detail import PingStatistics, TransferSettings, TransferStatistics, common
from worker.model.measurement import Measurement, Outcome, made
from worker.model.options import ThroughputOptions
from worker.model.rtt import rtt_statistics
from worker.wire import keyspace
from worker.wire.event import is_event

RUN = "20260102T030405000-abcd"
BEGUN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def measurement(number: int, run: str = RUN) -> Measurement:
    """Give the `number`-th ping result; every seventh is a loss with awkward text."""
    rng = random.Random(number)
    lost = number % 7 == 3
    least_ms = rng.uniform(1, 90)
    rtts = [None if lost else least_ms + rng.expovariate(2) for _ in range(10)]
    latency_ms = rtt_statistics(rtts).rtt_mean_ms
    return made(
        Measurement(
            run=run,
            probe="ping",
            source=f"node-{number // 1000}",
            target=f"node-{number % 1000}",
            address=f"10.0.{number % 250}.1",
            started_at=BEGUN + timedelta(milliseconds=number),
            outcome=Outcome.NO_REPLY if lost else Outcome.OK,
            error='none of 10 echoes, "as they say", was answered' if lost else "",
            latency_ms=latency_ms,
            packet_loss_pct=100.0 if lost else 0.0,
            detail=ping_statistics(
                rtts,
                send_lag_max_ms=rng.uniform(0, 1),
                read_lag_max_ms=None if lost else rng.uniform(0, 1),
                elapsed_s=rng.uniform(1, 2),
            ),
        )
    )


def ping_statistics(rtts_ms: Sequence[float | None] = (), **changes: Any) -> PingStatistics:
    """Give whole statistics of echoes, with these times and changes."""
    answered = [rtt for rtt in rtts_ms if rtt is not None]
    usual = {
        "sent": len(rtts_ms) or 10,
        "received": len(answered),
        "duplicates": 0,
        "late": 0,
        "errors": 0,
        "error_kind": None,
        "damaged": 0,
        "refused": 0,
        "times_refused": 0,
        "wait_s": 1.0,
        "interval_s": 0.1,
        "interval_mean_s": 0.1,
        "size_bytes": 56,
        **vars(rtt_statistics(rtts_ms)),
        "wake_ms": None,
        "reply_ttl": "64" if answered else None,
        "send_lag_max_ms": None,
        "read_lag_max_ms": None,
        "receive_drops": 0,
        "host_limited": False,
        "socket": "raw",
        "elapsed_s": 1.0,
        "rtts_ms": tuple(rtts_ms),
    }
    return PingStatistics(**(usual | changes))


def transfer_statistics(**changes: Any) -> TransferStatistics:
    """Give statistics of a test with two ends that ran, with these changes."""
    settings = common(TransferSettings, ThroughputOptions())
    return TransferStatistics(**{**settings, "deadline_s": 20.0, "test_s": 11.0, **changes})


def fields_of(number: int, run: str = RUN) -> dict[Any, Any]:
    """Give a result as XADD takes it."""
    return dict(measurement(number, run).to_fields())


def fill(connection: redis.Redis, count: int, *, first: int = 0, run: str = RUN) -> None:
    """Add results to the stream, at ids of the server's clock."""
    pipeline = connection.pipeline(transaction=False)
    for number in range(first, first + count):
        pipeline.xadd(keyspace.RESULTS, fields_of(number, run))
        if number % 100 == 99:
            pipeline.execute()
    pipeline.execute()


def stream_rows(connection: redis.Redis) -> list[list[str]]:
    """Give the rows that the stream's present entries make, as text."""
    entries: Any = connection.xrange(keyspace.RESULTS)
    ours = ((i, f) for i, f in entries if b"v" in f and not is_event(f))
    rows = [Measurement.from_fields(f).to_row(i.decode()) for i, f in ours]
    return [["" if cell is None else str(cell) for cell in row] for row in rows]


def file_rows(path: Path) -> list[list[str]]:
    """Give the rows of a CSV without its header."""
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def docs_script(name: str) -> ModuleType:
    """Import a program of docs/, which is no package."""
    path = Path(__file__).parents[1] / "docs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
