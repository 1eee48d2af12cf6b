"""
One measurement: (run, probe, source, target), a time, numbers or an error class.

Pure: knows no Redis. Its stream form is flat fields plus one msgpack field `detail`, of `record`;
its CSV form is `csv_columns.CSV_COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from enum import Enum
from typing import Any

import msgpack

from worker.model.csv_columns import DETAIL_COLUMNS, NUMBERS
from worker.model.detail import (
    Detail,
    PacketTrips,
    RoundTrips,
    TransferStatistics,
    of_values,
    read_detail,
    rounded,
    times_to_ns,
)
from worker.model.errors import WireError
from worker.model.fields import (
    Cell,
    cells_of,
    check_version,
    in_text,
    parse_number,
    parse_text,
    short_text,
    unpack_detail,
)
from worker.model.names import NodeName, RunId
from worker.model.probe import PROBES
from worker.model.record import packing, wire1
from worker.model.record.forms import FORM_OF
from worker.model.record.numbers import ADDRESS, ERROR, STARTED_AT
from worker.model.text import epoch_us, iso_utc, json_ready, of_epoch_us, one_line
from worker.model.version import READ_VERSIONS, WIRE_VERSION


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
    TARGET_LOST = "target_lost"
    WRONG_HOST = "wrong_host"
    UNVERIFIED = "unverified"
    INTERCEPTED = "intercepted"
    TOOL_MISSING = "tool_missing"
    BAD_REPLY = "bad_reply"
    CANCELLED = "cancelled"
    CRASHED = "crashed"


#: A record's headline numbers, as they are called in the stream.
_NUMBERS = {name: name.encode() for name in NUMBERS}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """
    One result of one ordered pair.

    Attributes:
        run: Run id; sorts by time.
        probe: Kind of measurement, such as `ping`.
        source: Name of the node that sent, or of the machine of a test from here.
        target: Name of the node that was measured, or a host, or `redis`.
        address: The address that was measured.
        outcome: What became of the pair.
        started_at: Aware UTC time of the first packet; of one without numbers, by default now.
        error: One line for a person, empty when `ok`; made one line and cut if it is not.
        latency_ms: Mean round-trip time; None when nothing answered.
        packet_loss_pct: Round-trip loss in percent (RFC 6673), None when nothing was sent.
        throughput_mbps: Goodput at the receiver, 10^6 bit/s.
        detail: Everything else, samples included: statistics of the probe where it has measured.
    """

    run: RunId
    probe: str
    source: NodeName
    target: str
    address: str
    outcome: Outcome
    started_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    error: str = ""
    latency_ms: float | None = None
    packet_loss_pct: float | None = None
    throughput_mbps: float | None = None
    detail: Detail = field(default_factory=Detail)

    def __post_init__(self) -> None:
        """Make `error` one bounded line: a row of the CSV is a line of the file."""
        if self.error:
            object.__setattr__(self, "error", one_line(self.error))

    @property
    def is_untimed(self) -> bool:
        """Answered, at no certain time: the source was busy as it sent, or its clock was set."""
        refused = isinstance(self.detail, PacketTrips) and bool(self.detail.times_refused)
        return self.outcome is Outcome.OK and self.latency_ms is None and refused

    @property
    def round_trips(self) -> RoundTrips | None:
        """The statistics of its round trips; None where it has none, as a finding has not."""
        return self.detail if isinstance(self.detail, RoundTrips) else None

    @property
    def transfer(self) -> TransferStatistics | None:
        """The statistics of its test with two ends; None where iperf3 was not started."""
        return self.detail if isinstance(self.detail, TransferStatistics) else None

    def with_more(self, more: Mapping[str, Any]) -> Measurement:
        """Return it with these values, too, which its probe knows nothing of."""
        more = {**self.detail.more, **more}
        return replace(self, detail=replace(self.detail, more=more))

    def to_fields(self) -> dict[str, bytes | str]:
        """Return the flat fields of a stream entry: always all, an absent number an empty text."""
        head: dict[int | str, Any] = {
            STARTED_AT: epoch_us(self.started_at),
            ADDRESS: self.address,
            **({ERROR: self.error} if self.error else {}),
        }
        return {
            "v": str(WIRE_VERSION),
            "run": self.run,
            "probe": self.probe,
            "source": self.source,
            "target": self.target,
            "outcome": self.outcome.value,
            "latency_ms": in_text(self.latency_ms),
            "packet_loss_pct": in_text(self.packet_loss_pct),
            "throughput_mbps": in_text(self.throughput_mbps),
            "detail": msgpack.packb(head | packing.stored(self.detail)),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Measurement:
        """
        Read a stream entry's fields back; whatever is accepted makes a CSV row of one line.

        Raises:
            WireError: A field is missing, of another version, or does not parse.
        """
        try:
            check_version(fields, "the record", _READABLE)
            name = parse_text(fields[b"probe"])
            probe = PROBES.get(name)
            statistics = probe.statistics if probe else Detail
            (started_at, address, error, more), numbers = _parts(fields)
            if fields[b"v"] == wire1.VERSION:
                cells_of(more, DETAIL_COLUMNS)
                detail = read_detail(statistics, more)
            else:
                # A class that has no form of its own, as another version's probe may have.
                detail = packing.read(more, Detail if statistics in FORM_OF else statistics)
            latency_ms, packet_loss_pct, throughput_mbps = numbers
            return of_values(
                cls,
                {
                    "run": parse_text(fields[b"run"]),
                    "probe": name,
                    "source": parse_text(fields[b"source"]),
                    "target": parse_text(fields[b"target"]),
                    "address": address,
                    "outcome": _OUTCOMES[fields[b"outcome"]],
                    "started_at": started_at,
                    "error": one_line(error),
                    "latency_ms": latency_ms,
                    "packet_loss_pct": packet_loss_pct,
                    "throughput_mbps": throughput_mbps,
                    "detail": detail,
                },
            )
        except _NOT_OURS as exc:
            raise _refusal(exc) from exc

    def to_row(self, stream_id: str) -> list[Cell]:
        """Return the CSV cells, in the order of `CSV_COLUMNS`; None is an empty cell."""
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
            *cells_of(self.detail.to_map(), DETAIL_COLUMNS),
            stream_id,
        ]

    def to_json(self, stream_id: str | None = None) -> dict[str, Any]:
        """Return one JSON-ready object with the record's field names; absent is null."""
        texts = {
            name: getattr(self, name) for name in ("run", "probe", "source", "target", "address")
        }
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        record = {
            **texts,
            "started_at": iso_utc(self.started_at),
            "outcome": self.outcome.value,
            "error": self.error,
            **numbers,
            "stream_id": stream_id,
        }
        more = {name: json_ready(value) for name, value in self.detail.to_map().items()}
        return {**record, **more, **record}


def csv_row(fields: Mapping[bytes, bytes], stream_id: bytes) -> list[Cell]:
    """
    Read the CSV cells of a stream entry: those of `from_fields(…).to_row(…)`, at half the cost.

    The collector's inner loop.

    Raises:
        WireError: For just what `from_fields` refuses.
    """
    try:
        check_version(fields, "the record", _READABLE)
        (started_at, address, error, more), numbers = _parts(fields)
        values = more if fields[b"v"] == wire1.VERSION else packing.restored(more)[1]
        return [
            iso_utc(started_at),
            address,
            *numbers,
            parse_text(fields[b"source"]),
            parse_text(fields[b"target"]),
            parse_text(fields[b"probe"]),
            parse_text(fields[b"run"]),
            _OUTCOMES[fields[b"outcome"]].value,
            one_line(error),
            *cells_of(values, DETAIL_COLUMNS),
            stream_id.decode(),
        ]
    except _NOT_OURS as exc:
        raise _refusal(exc) from exc


def _parts(fields: Mapping[bytes, bytes]) -> tuple[wire1.Parts, list[float | None]]:
    """Return what each wire version has elsewhere, the detail as it is stored; and the numbers."""
    if fields[b"v"] == wire1.VERSION:
        found = [parse_number(fields.get(key, b"")) for key in _NUMBERS.values()]
        return wire1.parts(fields), found
    stored: dict[Any, Any] = unpack_detail(fields[b"detail"])
    parts = wire1.Parts(
        started_at=of_epoch_us(stored.pop(STARTED_AT)),
        address=short_text(stored.pop(ADDRESS)),
        error=_text(stored.pop(ERROR, "")),
        detail=stored,
    )
    return parts, [parse_number(fields[key]) for key in _NUMBERS.values()]


def begun_at(fields: Mapping[bytes, bytes]) -> str:
    """Return the `timestamp` of a stream entry's row; empty where it would be refused for that."""
    try:
        if fields.get(b"v") == wire1.VERSION:
            return iso_utc(wire1.parts(fields).started_at)
        return iso_utc(of_epoch_us(unpack_detail(fields[b"detail"])[STARTED_AT]))
    except _NOT_OURS:
        return ""


def _text(value: object) -> str:
    if type(value) is not str:
        raise ValueError("error is no text")
    return value


def made(measurement: Measurement) -> Measurement:
    """Return a new record with its times in whole nanoseconds, as every record is made."""
    times = times_to_ns({"latency_ms": measurement.latency_ms})
    return replace(measurement, **times, detail=rounded(measurement.detail))


_OUTCOMES = {outcome.value.encode(): outcome for outcome in Outcome}
_READABLE = frozenset(str(version).encode() for version in READ_VERSIONS)
#: msgpack unpacks what lies deeper than Python shows it in an error's text.
_NOT_OURS = (
    KeyError, ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException,
)  # fmt: skip


def _refusal(exc: Exception) -> WireError:
    return WireError(f"stream entry is not a measurement: {one_line(repr(exc))}")
