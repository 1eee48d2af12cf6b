"""
The monitor's records: ordinary measurements, of no run, tagged with what the host program does.

Pure but for the clock. A recorder's records have `monitor-<its id>` where a mesh's have the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from worker.model.detail import Detail
from worker.model.measurement import Measurement, Outcome, made
from worker.model.names import NO_NODE, NO_RUN
from worker.model.text import one_line
from worker.monitor.tagging import tags

#: Begin of the run field of a record that belongs to no run.
RUN_PREFIX = "monitor-"
#: Ping and throughput of one host in one row, as in PTZJEPA's file.
NETWORK = "network"
PING, THROUGHPUT = "ping", "throughput"
SSHFS, LOCKER, TIMEIT = "sshfs", "locker", "timeit"
#: Records whose first five columns mean what PTZJEPA's file says they mean.
NETWORK_PROBES = frozenset({NETWORK, PING, THROUGHPUT})
#: `Measurement.from_fields` refuses longer ones.
MAX_TARGET_CHARS = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """A record with its place among its recorder's: 1, 2, 3, ..."""

    sequence: int
    measurement: Measurement


def record(
    *,
    probe: str,
    target: str,
    address: str = "",
    outcome: Outcome = Outcome.OK,
    error: str = "",
    started_at: datetime | None = None,
    latency_ms: float | None = None,
    throughput_mbps: float | None = None,
    detail: Mapping[str, Any] | None = None,
) -> Measurement:
    """Make a record of now; its recorder fills in source and run."""
    return made(
        Measurement(
            run=NO_RUN,
            probe=probe,
            source=NO_NODE,
            target=label(target),
            address=label(address),
            started_at=started_at or datetime.now(timezone.utc),
            outcome=outcome,
            error=error,
            latency_ms=latency_ms,
            throughput_mbps=throughput_mbps,
            detail=Detail(more={**tags(), **(detail or {})}),
        )
    )


def label(text: str) -> str:
    """
    Cut any text to one that a record may carry as a name.

    >>> label("/data\\n/mount")
    '/data /mount'
    """
    return one_line(text)[:MAX_TARGET_CHARS]


def apart(started_at: datetime, last: datetime | None) -> datetime:
    """
    Return a record's time in whole milliseconds, later than the last of its probe and target.

    A record is told from all others by source, run, probe, target and time in milliseconds; two
    operations on one locker may be closer than that.
    """
    whole_ms = started_at.replace(microsecond=started_at.microsecond // 1000 * 1000)
    return whole_ms if last is None or whole_ms > last else last + timedelta(milliseconds=1)
