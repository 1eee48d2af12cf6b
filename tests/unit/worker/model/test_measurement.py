"""The record: what goes into the stream comes back, and nothing else is taken for one."""

from __future__ import annotations

import csv
import io
import json
import math
from datetime import datetime, timezone
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.model.csv_columns import CSV_COLUMNS, DETAIL_COLUMNS
from worker.model.detail import Detail, TransferStatistics, read_detail
from worker.model.errors import WireError
from worker.model.fields import MAX_DETAIL_BYTES
from worker.model.measurement import Measurement, Outcome, csv_row
from worker.model.text import MAX_LINE_CHARS, iso_utc, json_ready, one_line, parse_iso_utc

STARTED = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=timezone.utc)

names = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=64).filter(
    str.isprintable
)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**63), 2**64 - 1)  # what msgpack holds
cells = numbers | st.booleans() | integers | names
scalars = st.none() | st.booleans() | integers | st.floats() | st.text(max_size=9)
plain: st.SearchStrategy[Any] = st.recursive(
    scalars | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | integers, inner)
    ),
    max_leaves=4,
)
measurements = st.builds(
    Measurement,
    run=names,
    probe=names,
    source=names,
    target=names,
    address=names,
    started_at=st.datetimes(timezones=st.just(timezone.utc)).map(
        lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)
    ),
    outcome=st.sampled_from(Outcome),
    error=st.text(max_size=2 * MAX_LINE_CHARS),
    latency_ms=numbers,
    packet_loss_pct=numbers,
    throughput_mbps=numbers,
    detail=st.builds(
        read_detail,
        st.sampled_from((Detail, TransferStatistics)),
        st.dictionaries(st.sampled_from(DETAIL_COLUMNS), cells)
        | st.fixed_dictionaries({"rtts_ms": st.lists(numbers)}),
    ),
)


def wire_form(measurement: Measurement) -> dict[bytes, bytes]:
    fields = measurement.to_fields()
    return {k.encode(): v if isinstance(v, bytes) else v.encode() for k, v in fields.items()}


def good(**changes: Any) -> Measurement:
    usual: dict[str, Any] = {
        "run": "r1",
        "probe": "ping",
        "source": "a",
        "target": "b",
        "address": "10.0.0.2",
        "started_at": STARTED,
        "outcome": Outcome.OK,
    }
    return Measurement(**(usual | changes))


def written(measurement: Measurement, stream_id: str = "1-0") -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(measurement.to_row(stream_id))
    return file.getvalue()


@given(measurements)
def test_row_is_one_line_and_its_cells_read_back(measurement: Measurement) -> None:
    text = written(measurement, "17-3")
    assert text.count("\n") == 1
    assert "\r" not in text
    row = dict(zip(CSV_COLUMNS, next(csv.reader([text])), strict=True))
    assert row["stream_id"] == "17-3"
    assert parse_iso_utc(row["timestamp"]) == measurement.started_at
    assert (row["source"], row["target"]) == (measurement.source, measurement.target)
    assert row["error"] == measurement.error
    for name in ("latency_ms", "packet_loss_pct", "throughput_mbps"):
        value = getattr(measurement, name)
        assert row[name] == ("" if value is None else repr(value))


def read(fields: dict[bytes, bytes]) -> Measurement | None:
    """Read both ways, which must agree; None when refused."""
    try:
        row = csv_row(fields, b"1-0")
    except WireError:
        with pytest.raises(WireError):
            Measurement.from_fields(fields)
        return None
    measurement = Measurement.from_fields(fields)
    assert row == measurement.to_row("1-0")
    return measurement


@given(measurements)
def test_stream_form_comes_back_equal_and_makes_the_same_row(measurement: Measurement) -> None:
    assert read(wire_form(measurement)) == measurement


@given(measurements)
def test_json_form_parses(measurement: Measurement) -> None:
    text = json.dumps(measurement.to_json("1-0"), allow_nan=False)
    assert json.loads(text)["run"] == measurement.run


field_names = st.sampled_from(list(wire_form(good(latency_ms=1.0))))


@given(st.dictionaries(field_names | st.binary(), st.binary()))
def test_arbitrary_fields_raise_nothing_but_wire_error(fields: dict[bytes, bytes]) -> None:
    assert read(fields) is None


@given(field_names, st.binary() | st.floats().map(lambda x: repr(x).encode()))
@example(b"started_at", b"2026-99-99T00:00:00.000Z")
@example(b"started_at", "２０２６-01-02T03:04:05.678Z".encode())
@example(b"latency_ms", b"nan")
@example(b"source", b"a\nb")
@example(b"outcome", b"fine")
@example(b"v", b"2")
def test_one_damaged_field_is_refused_or_still_makes_one_line(name: bytes, value: bytes) -> None:
    measurement = read(wire_form(good()) | {name: value})
    assert measurement is None or written(measurement).count("\n") == 1


@given(st.dictionaries(st.sampled_from(DETAIL_COLUMNS) | st.text(max_size=9), plain, max_size=4))
@example({"rtt_min_ms": math.inf})
@example({"rtt_min_ms": "1\n2"})
@example({"rtt_min_ms": [1.0]})
@example({"run": "other", "stream_id": "other"})
def test_any_detail_is_refused_or_makes_one_line_and_valid_json(detail: dict[str, Any]) -> None:
    measurement = read(wire_form(good()) | {b"detail": msgpack.packb(detail)})
    if measurement is None:
        return
    assert written(measurement).count("\n") == 1
    record = json.loads(json.dumps(measurement.to_json("1-0"), allow_nan=False))
    assert (record["run"], record["stream_id"]) == ("r1", "1-0")


def test_detail_too_large_is_refused() -> None:
    packed = msgpack.packb({"rtts_ms": "x" * MAX_DETAIL_BYTES})
    with pytest.raises(WireError, match="over"):
        Measurement.from_fields(wire_form(good()) | {b"detail": packed})


def test_first_columns_are_those_of_ptzjepa() -> None:
    assert CSV_COLUMNS[:5] == (
        "timestamp",
        "host",
        "latency_ms",
        "packet_loss_pct",
        "throughput_mbps",
    )
    assert CSV_COLUMNS[-1] == "stream_id"


def test_absent_is_an_empty_cell_and_true_is_written_as_json_writes_it() -> None:
    row = dict(
        zip(
            CSV_COLUMNS, good(detail=Detail(more={"host_limited": True})).to_row("1-0"), strict=True
        )
    )
    assert row["latency_ms"] is None
    assert row["host_limited"] == "true"
    assert "None" not in written(good())


def test_error_is_one_bounded_line() -> None:
    measurement = good(error="no\r\nroute\x00" + "x" * 1000)
    assert measurement.error.startswith("no route?x")
    assert len(measurement.error) == MAX_LINE_CHARS


@given(st.text())
def test_one_line_is_printable_bounded_and_stays_as_it_is(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert len(line) <= MAX_LINE_CHARS
    assert one_line(line) == line


@given(st.datetimes(timezones=st.just(timezone.utc)))
def test_time_is_cut_to_the_millisecond_not_rounded(instant: datetime) -> None:
    back = parse_iso_utc(iso_utc(instant))
    assert back == instant.replace(microsecond=instant.microsecond // 1000 * 1000)


def test_finding_has_an_outcome_and_no_numbers() -> None:
    found = Measurement(
        run="r1",
        probe="udp",
        source="a",
        target="b",
        address="10.0.0.2",
        outcome=Outcome.DENIED,
        error="not a node",
        started_at=STARTED,
    )
    assert (found.outcome, found.error) == (Outcome.DENIED, "not a node")
    assert (found.latency_ms, found.packet_loss_pct, found.throughput_mbps) == (None, None, None)


def test_deep_detail_does_not_exhaust_the_stack() -> None:
    deep: object = 1
    for _ in range(900):
        deep = [deep]
    assert len(json.dumps(json_ready(deep))) < 100
