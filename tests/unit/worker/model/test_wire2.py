"""
The form of wire version 2, byte for byte.

A record that is written otherwise than in tests/data/wire2.json, or read as something else, is one
of another wire version: formulas, defaults and numbers of names are part of the form.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from samples import ping_statistics, transfer_statistics

from worker.model.detail import (
    Detail,
    Interval,
    RedisStatistics,
    TcpStatistics,
    TransferSettings,
    common,
)
from worker.model.measurement import Measurement, Outcome, csv_row
from worker.model.options import UdpOptions
from worker.model.record.numbers import ADDRESS, ERROR, FORM, NUMBERS, STARTED_AT
from worker.model.rtt import packet_loss_pct, rtt_statistics

ROOT = Path(__file__).parents[4]
PINNED = json.loads((ROOT / "tests" / "data" / "wire2.json").read_text())
PINNED_NUMBERS = PINNED.pop("numbers")

RTTS_MS = (11.5, 10.250001, 12.0, 10.75, 0.065535, 4294.967296, 11.0, 11.000001, 10.999999, 1.0)
TWENTY = (*RTTS_MS, *RTTS_MS, None, 7.5, None)
CLOCK = {"clock_offset_ms": -1.627, "clock_offset_uncertainty_ms": 0.951}
INTERVALS = (
    Interval(0.0, 1.000123, 94.5, 3, omitted=True),
    Interval(1.000123, 2.0, 93.25, None, omitted=False),
)


def record(probe: str, detail: Detail, **changes: Any) -> Measurement:
    usual: dict[str, Any] = {
        "run": "20260102T030405000-abcd",
        "probe": probe,
        "source": "cam-1",
        "target": "hub",
        "address": "10.0.0.2",
        "started_at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc),
        "outcome": Outcome.OK,
        "detail": detail,
    }
    return Measurement(**(usual | changes))


def of_trips(probe: str, detail: Any) -> Measurement:
    loss_pct = packet_loss_pct(detail.sent, detail.received)
    return record(probe, detail, latency_ms=detail.rtt_mean_ms, packet_loss_pct=loss_pct)


LAGS = {"send_lag_max_ms": 0.231061, "read_lag_max_ms": 0.0104, "elapsed_s": 0.912711296}
PING = ping_statistics(RTTS_MS, interval_mean_s=0.100007215, wake_ms=12.698676, **LAGS, **CLOCK)
TRIPS = {"wait_s": 1.0, "interval_s": 0.1, "elapsed_s": 1.5, "rtts_ms": RTTS_MS[:3]}
STATISTICS = vars(rtt_statistics(RTTS_MS[:3]))
RECORDS = {
    "ping": of_trips("ping", PING),
    "lossy ping": of_trips(
        "ping",
        ping_statistics(
            TWENTY, duplicates=1, late=1, times_refused=1, received=22, reply_ttl="55 64",
            socket="datagram", wait_s=0.5, interval_s=0.02, size_bytes=1400, host_limited=True,
        ),
    ),
    "ping without its samples": of_trips("ping", replace(PING, rtts_ms=())),
    "ping of no whole nanoseconds": of_trips(
        "ping", replace(PING, wake_ms=1 / 3, rtts_ms=(0.1 + 0.2,))
    ),
    "silence": record(
        "ping",
        ping_statistics([None, None], reply_ttl=None),
        outcome=Outcome.NO_REPLY,
        error="none of 2 echoes was answered in time",
        packet_loss_pct=100.0,
    ),
    "tcp": of_trips(
        "tcp",
        TcpStatistics(
            **STATISTICS, **TRIPS, sent=3, received=3, accepted=1, refusals=2, times_refused=0,
            port=8022,
        ),
    ),
    "redis": of_trips(
        "redis",
        RedisStatistics(
            **STATISTICS, **TRIPS, sent=3, received=3, locker_cycles=3, last_error="",
            locker_cycle_median_ms=0.55, locker_cycle_max_ms=0.75,
        ),
    ),
    "throughput": record(
        "throughput",
        transfer_statistics(
            bytes_received=117_500_000, elapsed_s=5.012, sent_mbps=94.75, bytes_sent=118_000_000,
            retransmits=3, congestion="cubic", intervals=INTERVALS, rtt_idle_median_ms=0.5,
            rtt_loaded_median_ms=24.123456, rtt_loaded_max_ms=31.0, rtt_loaded_sent=50,
            rtt_loaded_received=50, host_limited=False, cpu_source_pct=12.5, cpu_target_pct=33.25,
            iperf3_source="3.12", iperf3_target="3.16", connected_by="cam-1", path_mtu_bytes=1400,
        ),
        throughput_mbps=93.87,
    ),
    "test that was not made": record(
        "udp",
        TransferSettings(**common(TransferSettings, UdpOptions())),
        outcome=Outcome.DENIED,
        error="hub takes no tests",
    ),
    "finding": record(
        "tcp", Detail(), outcome=Outcome.UNRESOLVED, error="cam-1: name unknown", address=""
    ),
    "record of a program": record(
        "locker",
        Detail(more={"operation": "acquire", "activity": "idle", "elapsed_s": 0.25, "left_s": 1}),
        run="monitor-0a1b2c3d",
        latency_ms=0.4,
    ),
    "ping that a program has measured": of_trips("ping", replace(PING, more={"activity": "idle"})),
}  # fmt: skip


def entry(measurement: Measurement) -> dict[str, str]:
    """Give the fields of an entry, the detail in hexadecimal digits."""
    fields = measurement.to_fields()
    return {name: v if isinstance(v, str) else v.hex() for name, v in fields.items()}


def write() -> str:
    """Give what tests/data/wire2.json would have to be; it is never to be written again."""
    parts = [f'"numbers": {json.dumps(NUMBERS)}']
    for name, each in RECORDS.items():
        fields, row = json.dumps(entry(each)), json.dumps(each.to_row("1-0"))
        parts.append(f'"{name}": {{\n"fields": {fields},\n"row": {row}}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


@pytest.mark.parametrize("name", RECORDS)
def test_record_is_written_as_it_was_fixed(name: str) -> None:
    assert entry(RECORDS[name]) == PINNED[name]["fields"]
    assert list(entry(RECORDS[name])) == list(PINNED[name]["fields"])


@pytest.mark.parametrize("name", PINNED)
def test_record_that_was_written_is_read_as_it_was_meant(name: str) -> None:
    pinned = PINNED[name]
    fields = {key.encode(): value.encode() for key, value in pinned["fields"].items()}
    fields[b"detail"] = bytes.fromhex(pinned["fields"]["detail"])
    assert csv_row(fields, b"1-0") == pinned["row"]
    found = Measurement.from_fields(fields)
    assert found == RECORDS[name]
    assert found.to_row("1-0") == pinned["row"]


def test_numbers_of_names_are_as_they_were_fixed_and_as_the_docs_have_them() -> None:
    assert PINNED_NUMBERS == NUMBERS
    own = {"form": FORM, "started_at": STARTED_AT, "address": ADDRESS, "error": ERROR}
    text = (ROOT / "docs" / "keys.md").read_text().partition("## A result")[2]
    listed = re.findall(r"\b(\d+) (\w+)", text.partition("```text")[2].partition("```")[0])
    assert {name: int(number) for number, name in listed} == own | NUMBERS
