"""
One measurement: (run, probe, source, target), a time, numbers or an error class.

Pure: knows no Redis. Its stream form is flat fields plus one msgpack field `detail`; its CSV form
is `CSV_COLUMNS`, whose first five columns are those of PTZJEPA's own file, in its order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from typing import Any

import msgpack

from worker.errors import WireError

#: Version of the stream record; raised whenever a field changes its meaning.
RECORD_VERSION = 1

#: A detail larger than this is refused: 1,000 echoes take about 9 kB.
MAX_DETAIL_BYTES = 256 * 1024


class Outcome(str, Enum):
    """What became of one pair; every one but `crashed` is a finding."""

    OK = "ok"
    NO_REPLY = "no_reply"
    UNREACHABLE = "unreachable"
    UNRESOLVED = "unresolved"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    TARGET_BUSY = "target_busy"
    DENIED = "denied"
    OVER_BUDGET = "over_budget"
    SOURCE_LOST = "source_lost"
    TOOL_MISSING = "tool_missing"
    BAD_REPLY = "bad_reply"
    CANCELLED = "cancelled"
    CRASHED = "crashed"


#: Columns taken from `detail` by name: statistics that a reader of the CSV wants in cells.
DETAIL_COLUMNS = (
    "sent",
    "received",
    "duplicates",
    "late",
    "wait_s",
    "rtt_min_ms",
    "rtt_mean_ms",
    "rtt_median_ms",
    "rtt_p95_ms",
    "rtt_max_ms",
    "rtt_stddev_ms",
    "jitter_mean_abs_ms",
    "jitter_rfc3550_ms",
    "out_of_order",
    "sent_mbps",
    "retransmits",
    "bytes_received",
    "elapsed_s",
    "rtt_loaded_median_ms",
    "host_limited",
    "send_lag_max_ms",
    "read_lag_max_ms",
    "clock_offset_ms",
)

CSV_COLUMNS = (
    "timestamp",
    "host",
    "latency_ms",
    "packet_loss_pct",
    "throughput_mbps",
    "source",
    "target",
    "probe",
    "run_id",
    "outcome",
    "error",
    *DETAIL_COLUMNS,
    "stream_id",
)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """
    One result of one ordered pair.

    Attributes:
        run: Run id; sorts by time.
        probe: Kind of measurement, such as `ping`.
        source: Name of the node that sent.
        target: Name of the node that was measured.
        address: The address that was measured.
        started_at: Aware UTC time of the first packet (or of the finding).
        outcome: What became of the pair.
        error: One line for a person, empty when `ok`.
        latency_ms: Mean round-trip time; None when nothing answered.
        packet_loss_pct: Round-trip loss in percent (RFC 6673), None when nothing was sent.
        throughput_mbps: Goodput at the receiver, 10^6 bit/s.
        detail: Everything else, samples included; plain msgpack values.
    """

    run: str
    probe: str
    source: str
    target: str
    address: str
    started_at: datetime
    outcome: Outcome
    error: str = ""
    latency_ms: float | None = None
    packet_loss_pct: float | None = None
    throughput_mbps: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_fields(self) -> dict[str, bytes | str]:
        """Give the flat fields of a stream entry; a number that is absent is left out."""
        numbers = {
            "latency_ms": self.latency_ms,
            "packet_loss_pct": self.packet_loss_pct,
            "throughput_mbps": self.throughput_mbps,
        }
        return {
            "v": str(RECORD_VERSION),
            "run": self.run,
            "probe": self.probe,
            "source": self.source,
            "target": self.target,
            "address": self.address,
            "started_at": iso_utc(self.started_at),
            "outcome": self.outcome.value,
            "error": self.error,
            **{name: repr(value) for name, value in numbers.items() if value is not None},
            "detail": msgpack.packb(dict(self.detail)),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Measurement:
        """
        Read a stream entry's fields back.

        Raises:
            WireError: A field is missing, of another version, or does not parse.
        """
        try:
            version = int(fields[b"v"])
            if version != RECORD_VERSION:
                raise WireError(f"record version ({version}) is not {RECORD_VERSION}; upgrade")
            return cls._parse(fields)
        except (KeyError, ValueError, TypeError, msgpack.UnpackException) as exc:
            raise WireError(f"stream entry is not a measurement: {exc!r}") from exc

    @classmethod
    def _parse(cls, fields: Mapping[bytes, bytes]) -> Measurement:
        text = {
            name: fields[name.encode()].decode()
            for name in ("run", "probe", "source", "target", "address", "error")
        }
        return cls(
            **text,
            started_at=parse_iso_utc(fields[b"started_at"].decode()),
            outcome=Outcome(fields[b"outcome"].decode()),
            latency_ms=_number(fields, b"latency_ms"),
            packet_loss_pct=_number(fields, b"packet_loss_pct"),
            throughput_mbps=_number(fields, b"throughput_mbps"),
            detail=_detail(fields[b"detail"]),
        )

    def to_row(self, stream_id: str) -> list[str]:
        """Give the CSV cells, in the order of `CSV_COLUMNS`; absent is an empty cell."""
        cells: list[object] = [
            iso_utc(self.started_at),
            self.address,
            self.latency_ms,
            self.packet_loss_pct,
            self.throughput_mbps,
            self.source,
            self.target,
            self.probe,
            self.run,
            self.outcome.value,
            self.error,
            *(self.detail.get(name) for name in DETAIL_COLUMNS),
            stream_id,
        ]
        return ["" if cell is None else str(cell) for cell in cells]

    def to_json(self, stream_id: str | None = None) -> dict[str, Any]:
        """Give one JSON-ready object with the record's field names; absent is null."""
        return {
            "run": self.run,
            "probe": self.probe,
            "source": self.source,
            "target": self.target,
            "address": self.address,
            "started_at": iso_utc(self.started_at),
            "outcome": self.outcome.value,
            "error": self.error,
            "latency_ms": self.latency_ms,
            "packet_loss_pct": self.packet_loss_pct,
            "throughput_mbps": self.throughput_mbps,
            **self.detail,
            "stream_id": stream_id,
        }


def iso_utc(instant: datetime) -> str:
    """
    Format an aware time as ISO 8601 UTC with milliseconds.

    >>> iso_utc(datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc))
    '2026-01-02T03:04:05.678Z'
    """
    return instant.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.") + (
        f"{instant.microsecond // 1000:03d}Z"
    )


def parse_iso_utc(text: str) -> datetime:
    """
    Read what `iso_utc` wrote.

    >>> parse_iso_utc('2026-01-02T03:04:05.678Z').microsecond
    678000
    """
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)


def _number(fields: Mapping[bytes, bytes], name: bytes) -> float | None:
    return float(fields[name]) if name in fields else None


def _detail(packed: bytes) -> dict[str, Any]:
    if len(packed) > MAX_DETAIL_BYTES:
        raise WireError(f"detail ({len(packed)} bytes) is over {MAX_DETAIL_BYTES}")
    detail = msgpack.unpackb(packed)
    if not isinstance(detail, dict) or not all(isinstance(key, str) for key in detail):
        raise WireError("detail is not a map of names")
    return detail
