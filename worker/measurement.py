"""
One measurement: (run, probe, source, target), a time, numbers or an error class.

Pure: knows no Redis. Its stream form is flat fields plus one msgpack field `detail`; its CSV form
is `CSV_COLUMNS`, whose first five columns are those of PTZJEPA's own file, in its order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from typing import Any

import msgpack

from worker.errors import WireError
from worker.text import iso_utc, json_ready, one_line, parse_iso_utc

#: Version of the stream record; raised whenever a field changes its meaning.
RECORD_VERSION = 1

#: A detail larger than this is refused: 1,000 echoes take about 9 kB.
MAX_DETAIL_BYTES = 256 * 1024
#: Names are at most 64 characters and a DNS name 253; longer text in a record is not ours.
MAX_TEXT_CHARS = 255

#: A cell of a CSV row; csv.writer leaves None empty and writes a float so that it reads back.
Cell = str | int | float | None


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
        error: One line for a person, empty when `ok`; made one line and cut if it is not.
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

    def __post_init__(self) -> None:
        """Make `error` one bounded line: a row of the CSV is a line of the file."""
        if self.error:
            object.__setattr__(self, "error", one_line(self.error))

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
        Read a stream entry's fields back; whatever is accepted makes a CSV row of one line.

        Raises:
            WireError: A field is missing, of another version, or does not parse.
        """
        try:
            version = int(fields[b"v"])
            if version != RECORD_VERSION:
                raise WireError(f"record version ({version}) is not {RECORD_VERSION}; upgrade")
            return cls._parse(fields)
        except (KeyError, ValueError, TypeError, OverflowError, msgpack.UnpackException) as exc:
            raise WireError(f"stream entry is not a measurement: {one_line(repr(exc))}") from exc

    @classmethod
    def _parse(cls, fields: Mapping[bytes, bytes]) -> Measurement:
        return cls(
            run=_text(fields[b"run"]),
            probe=_text(fields[b"probe"]),
            source=_text(fields[b"source"]),
            target=_text(fields[b"target"]),
            address=_text(fields[b"address"]),
            started_at=parse_iso_utc(fields[b"started_at"].decode()),
            outcome=_OUTCOMES[fields[b"outcome"]],
            error=fields[b"error"].decode(),
            latency_ms=_number(fields, b"latency_ms"),
            packet_loss_pct=_number(fields, b"packet_loss_pct"),
            throughput_mbps=_number(fields, b"throughput_mbps"),
            detail=_detail(fields[b"detail"]),
        )

    def to_row(self, stream_id: str) -> list[Cell]:
        """Give the CSV cells, in the order of `CSV_COLUMNS`; None is an empty cell."""
        return [
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
            *_detail_cells(self.detail),
            stream_id,
        ]

    def to_json(self, stream_id: str | None = None) -> dict[str, Any]:
        """Give one JSON-ready object with the record's field names; absent is null."""
        record = {
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
            "stream_id": stream_id,
        }
        return {**{name: json_ready(value) for name, value in self.detail.items()}, **record}


def finding(
    *,
    run: str,
    probe: str,
    source: str,
    target: str,
    address: str,
    outcome: Outcome,
    error: str,
    started_at: datetime | None = None,
) -> Measurement:
    """Give a measurement without numbers, which says why there are none; by default as of now."""
    return Measurement(
        run=run,
        probe=probe,
        source=source,
        target=target,
        address=address,
        started_at=started_at or datetime.now(timezone.utc),
        outcome=outcome,
        error=error,
    )


_OUTCOMES = {outcome.value.encode(): outcome for outcome in Outcome}


def _text(value: bytes) -> str:
    text = value.decode()
    if not text.isprintable() or len(text) > MAX_TEXT_CHARS:
        raise ValueError(f"text ({text[:40]!r}) must be printable and short")
    return text


def _number(fields: Mapping[bytes, bytes], name: bytes) -> float | None:
    if name not in fields:
        return None
    value = float(fields[name])
    if not math.isfinite(value):
        raise ValueError(f"{name.decode()} ({value}) must be finite")
    return value


def _detail(packed: bytes) -> dict[str, Any]:
    if len(packed) > MAX_DETAIL_BYTES:
        raise WireError(f"detail ({len(packed)} bytes) is over {MAX_DETAIL_BYTES}")
    detail = msgpack.unpackb(packed)
    if not isinstance(detail, dict) or not _NAME_TYPE.issuperset(map(type, detail)):
        raise WireError("detail is not a map of names")
    cells = list(map(detail.get, DETAIL_COLUMNS))
    # One look at all cells of nearly every record: this is the collector's inner loop.
    if not (_NUMBER_TYPES.issuperset(map(type, cells)) and math.isfinite(sum(filter(None, cells)))):
        for name, cell in zip(DETAIL_COLUMNS, cells, strict=True):
            _check_cell(name, cell)
    return detail


_NAME_TYPE = frozenset({str})
_NUMBER_TYPES = frozenset({type(None), int, float})


def _check_cell(name: str, value: object) -> None:
    if value is None or type(value) in (bool, int):
        return
    if isinstance(value, float) and math.isfinite(value):
        return
    if isinstance(value, str) and value.isprintable() and len(value) <= MAX_TEXT_CHARS:
        return
    raise ValueError(f"{name} ({str(value)[:40]!r}) must be a finite number or short text")


def _detail_cells(detail: Mapping[str, Any]) -> list[Cell]:
    cells = list(map(detail.get, DETAIL_COLUMNS))
    if bool in map(type, cells):
        return [str(cell).lower() if isinstance(cell, bool) else cell for cell in cells]
    return cells
