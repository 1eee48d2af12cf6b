"""The line that a collector writes is the row of the measurement, whatever an entry holds."""

from __future__ import annotations

import csv
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from samples import fields_of, measurement

from worker.model.csv_columns import CSV_COLUMNS
from worker.model.errors import WireError
from worker.model.measurement import Measurement, csv_row
from worker.model.record.csv_line import csv_lines, usual_lines
from worker.model.record.numbers import ADDRESS, ERROR, FORM, NAMES, NUMBERS, RTTS_MS, STARTED_AT

ID = b"1790000000000-7"
NOT_ITS_NUMBER = [True, False, 1.0, 4.0, 5.0, None, "wake_ms", "operation", b"x", -1, 99]

ns = st.integers(0, 99) | st.integers(-9, 2**64 - 1) | st.integers(1, 999).map(lambda n: n * 1000)
awkward = st.sampled_from(["", "a,b", 'say "a"', "é", "\n", "x" * 256, "a\u2028b", " a", "#"])
values = st.one_of(
    *(st.none(), st.booleans(), ns, awkward, st.text(max_size=5), st.floats(), st.binary()),
    *(st.lists(ns | st.none(), max_size=3), st.just({})),
)
changes = st.dictionaries(
    st.sampled_from([FORM, STARTED_AT, ADDRESS, ERROR, *NAMES, *NOT_ITS_NUMBER]), values, max_size=3
)
samples = st.lists(ns, max_size=25) | st.lists(ns | st.none(), max_size=25)
raw = st.one_of(
    st.sampled_from([b"", b"100", b"0.10", b"1_0", b"1e3", b"nan", b"inf", b"\xff", b"2", b"1"]),
    st.floats(allow_nan=False).map(lambda x: repr(x).encode()),
    awkward.map(str.encode),
)


def flat(fields: dict[str, Any]) -> list[bytes]:
    """Give names and values in turn, as Redis sends them."""
    pairs = [one for pair in fields.items() for one in pair]
    return [one if isinstance(one, bytes) else one.encode() for one in pairs]


def expected(fields: list[bytes]) -> str | None:
    """Give the line by way of the measurement; None where it is refused."""
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        row = Measurement.from_fields(named).to_row(ID.decode())
    except WireError:
        with pytest.raises(WireError):
            csv_row(named, ID)
        return None
    assert csv_lines([csv_row(named, ID)]) == csv_lines([row])
    return csv_lines([row])


def test_results_of_nodes_are_usual() -> None:
    for number in range(100):
        fields = flat(fields_of(number))
        line = usual_lines([(ID, fields)])[0]
        assert line == expected(fields)
        (cells,) = csv.reader([line])
        assert len(cells) == len(CSV_COLUMNS)
        assert cells[:2] == [f"2026-01-02T03:04:05.{number:03}Z", measurement(number).address]


@settings(max_examples=300)
@given(samples, changes, st.dictionaries(st.integers(0, 8), raw, max_size=2), st.integers(1, 7))
@example([10**15, 10**6, 1500], {}, {}, 1)
@example([10**9, 10**9 + 1], {RTTS_MS: [1.0, 2.0]}, {}, 1)
@example([10**9] * 20, {NUMBERS["wake_ms"]: -1, NUMBERS["host_limited"]: True}, {}, 1)
@example([], {STARTED_AT: -1, FORM: 1.0}, {}, 2)
@example([10**7], {5.0: 7}, {}, 1)
@example([0, True], {}, {}, 1)
@example([10**7], {NUMBERS["wake_ms"]: True}, {}, 1)
@example([10**7], {NUMBERS["sent"]: 7, NUMBERS["rtt_min_ms"]: 5 * 10**6}, {}, 1)
@example([10**7], {NUMBERS["rtt_min_ms"]: 5 * 10**6}, {}, 1)
@example([10**7], {ERROR: None}, {}, 1)
@example([10**7], {NUMBERS["refused"]: 2}, {}, 1)
def test_a_line_is_that_of_the_measurement_or_left_to_it(
    rtts: list[int | None], changed: dict[Any, Any], texts: dict[int, bytes], form: int
) -> None:
    fields = flat(fields_of(0))
    detail = msgpack.unpackb(fields[-1], strict_map_key=False)
    fields[-1] = msgpack.packb({**detail, FORM: form, RTTS_MS: rtts, **changed})
    for place, text in texts.items():
        fields[2 * place + 1] = text
    assert usual_lines([(ID, fields)])[0] in (None, expected(fields))


@given(st.integers(-9, 10**6) | st.integers(0, 10**13), st.sampled_from([1, 1000, 10**6]))
@example(99_999, 1)
@example(74_606, 1)
@example(10**15 - 1, 1)
def test_times_are_written_as_the_floats_that_they_are(number: int, unit: int) -> None:
    fields = flat(fields_of(0))
    detail = msgpack.unpackb(fields[-1], strict_map_key=False)
    times = {NUMBERS["elapsed_s"]: number * unit, NUMBERS["wake_ms"]: number * unit}
    fields[-1] = msgpack.packb({**detail, **times})
    line = usual_lines([(ID, fields)])[0]
    assert line is not None
    (cells,) = csv.reader([line])
    assert cells[CSV_COLUMNS.index("elapsed_s")] == repr(number * unit / 1e9)
    assert cells[CSV_COLUMNS.index("wake_ms")] == repr(number * unit / 1e6)


@given(st.lists(raw, max_size=22), st.binary(max_size=40))
def test_what_is_no_result_of_ours_is_never_usual(found: list[bytes], detail: bytes) -> None:
    fields = flat(fields_of(1))
    assert usual_lines([(ID, found)])[0] is None
    assert usual_lines([(ID, [*fields, b"more", b"1"])])[0] is None
    assert usual_lines([(ID, fields[:-2])])[0] is None
    usual_lines([(ID, [*fields[:-1], detail])])  # raises nothing
