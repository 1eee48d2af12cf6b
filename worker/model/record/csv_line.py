"""
The line of a CSV that a stream entry makes, with no object for what is in none of its cells.

Nearly all entries are series of questions, written as nodes write them. `usual_line` reads
these and no others: whatever it does not expect is `csv_row`'s to accept or to refuse.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from typing import Any

import msgpack
from msgpack import unpackb

from worker.model.csv_columns import DETAIL_COLUMNS
from worker.model.fields import (
    MAX_DETAIL_BYTES,
    Cell,
    as_cells,
    parse_number,
    parse_text,
    short_text,
)
from worker.model.measurement import Outcome
from worker.model.record.forms import FORMS, GIVEN
from worker.model.record.numbers import ADDRESS, ERROR, FORM, NAMES, RTTS_MS, STARTED_AT
from worker.model.rtt import STATISTICS, statistics_in_ns
from worker.model.text import iso_utc, of_epoch_us, one_line

#: The names and addresses of a mesh of a thousand nodes, or the seconds of three hours.
MOST_KEPT = 10_000


def csv_lines(rows: Iterable[Sequence[Cell]]) -> str:
    """Return rows as lines of a CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def usual_line(stream_id: bytes, fields: list[bytes]) -> str | None:
    """
    Return the line of an entry, that of `csv_row`; None where it takes `csv_row` to tell.

    Args:
        stream_id: Its id, the last cell.
        fields: Names and values in turn, as Redis sends them.
    """
    try:
        return _line(stream_id, fields)
    except _NOT_USUAL:
        return None


class _Kept(dict[Any, str]):
    """Cells of values that come again and again; others are made, or raise."""

    def __init__(self, make: Callable[[Any], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, value: Any) -> str:
        cell = self._make(value)
        if len(self) >= MOST_KEPT:
            self.clear()
        self[value] = cell
        return cell


def _quoted(text: str) -> str:
    """Write a printable text as csv.writer does."""
    return '"' + text.replace('"', '""') + '"' if '"' in text or "," in text else text


def _number(text: bytes) -> str:
    value = parse_number(text)
    return "" if value is None else repr(value)


_FIELDS = [
    *(b"v", b"run", b"probe", b"source", b"target", b"outcome"),
    *(b"latency_ms", b"packet_loss_pct", b"throughput_mbps", b"detail"),
]
_VERSION = b"2"
_OUTCOMES = {outcome.value.encode(): outcome.value for outcome in Outcome}
_NAMES = _Kept(lambda raw: _quoted(parse_text(raw)))
_TEXTS = _Kept(lambda text: _quoted(short_text(text)))
_NUMBERS = _Kept(_number)
_SECONDS = _Kept(lambda second: iso_utc(of_epoch_us(second * 1_000_000))[:-4])
#: Of a form with samples: its cells where nothing else is said.
_CELLS = {
    number: [
        "" if cell is None else str(cell)
        for cell in as_cells(map(form.defaults.get, (*DETAIL_COLUMNS, "")))
    ]
    for number, form in FORMS.items()
    if form.has_trips
}
_SENT, _RECEIVED = map(DETAIL_COLUMNS.index, ("sent", "received"))
_MEAN = STATISTICS.index("rtt_mean_ms")
_FROM, _TO = DETAIL_COLUMNS.index(STATISTICS[0]), DETAIL_COLUMNS.index(STATISTICS[-1]) + 1
_NS_OR_LOST = frozenset({int, type(None)})
#: Below, Python writes a float with an exponent; from there on, it may not write each digit.
_LEAST_NS, _MOST_NS = 100, 10**15
_THREE = [f"{number:03}" for number in range(1000)]
_LAST = [text.rstrip("0") or "0" for text in _THREE]
_NOT_USUAL = (
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    msgpack.UnpackException,
)


class _UnusualError(ValueError):
    pass


def _line(stream_id: bytes, fields: list[bytes]) -> str:
    """Return the line of a usual entry; raises one of `_NOT_USUAL` for any other."""
    if fields[::2] != _FIELDS:
        raise _UnusualError
    version, run, probe, source, target, outcome, latency, loss, throughput, packed = fields[1::2]
    if version != _VERSION or len(packed) > MAX_DETAIL_BYTES:
        raise _UnusualError
    stored = unpackb(packed, strict_map_key=False)
    if type(stored) is not dict:
        raise _UnusualError
    take = stored.pop
    cells = _CELLS[take(FORM)].copy()
    samples, at, address, error = take(RTTS_MS), take(STARTED_AT), take(ADDRESS), take(ERROR, "")
    if type(samples) is not list or type(at) is not int or type(error) is not str:
        raise _UnusualError
    if not _NS_OR_LOST.issuperset(map(type, samples)):
        raise _UnusualError
    # As `forms.derive` does.
    count = len(samples)
    cells[_SENT], cells[_RECEIVED] = str(count), str(count - samples.count(None))
    derived = ["" if ns is None else _in_ms(ns) for ns in statistics_in_ns(samples)]
    cells[_FROM:_TO] = derived
    # A float may equal a number of a name.
    if type(sum(stored)) is not int:
        raise _UnusualError
    for number, value in stored.items():
        place, writers = _WRITERS[number]
        cells[place] = writers[type(value)](value)
    cells[-1] = stream_id.decode()
    second, us = divmod(at, 1_000_000)
    latency_ms = latency.decode()
    if latency_ms != derived[_MEAN]:
        latency_ms = _number(latency)
    return (
        f"{_SECONDS[second]}{_THREE[us // 1000]}Z,{_TEXTS[address]},"
        f"{latency_ms},{_NUMBERS[loss]},{_NUMBERS[throughput]},"
        f"{_NAMES[source]},{_NAMES[target]},{_NAMES[probe]},{_NAMES[run]},{_OUTCOMES[outcome]},"
        f"{_quoted(one_line(error)) if error else ''},{','.join(cells)}\n"
    )


def _in_ms(ns: int) -> str:
    """
    Write nanoseconds as the float of milliseconds that they are.

    >>> _in_ms(1_500_000), _in_ms(12_345_678), _in_ms(99), _in_ms(0)
    ('1.5', '12.345678', '9.9e-05', '0.0')
    """
    if not _LEAST_NS <= ns < _MOST_NS:
        return repr(ns / 1e6)
    last = ns % 1000
    if last:
        return f"{ns // 1_000_000}.{_THREE[ns // 1000 % 1000]}{_LAST[last]}"
    return f"{ns // 1_000_000}.{_LAST[ns // 1000 % 1000]}"


def _in_s(ns: int) -> str:
    return repr(ns / 1e9)


def _finite(value: float) -> str:
    if not isfinite(value):
        raise _UnusualError
    return repr(value)


def _nothing(_: object) -> str:
    return ""


def _writer(name: str, unit_ns: float) -> tuple[int, dict[type, Callable[[Any], str]]]:
    """Return the place of a name's cell, the last where it has none, and how values are written."""
    if name not in DETAIL_COLUMNS:
        return -1, dict.fromkeys((int, float, str, type(None)), _nothing)
    of_int: Callable[[int], str] = {1e6: _in_ms, 1e9: _in_s}.get(unit_ns, str)
    kinds: dict[type, Callable[[Any], str]]
    kinds = {int: of_int, float: _finite, str: _TEXTS.__getitem__, type(None): _nothing}
    return DETAIL_COLUMNS.index(name), kinds


#: By number of a name. What others are derived from is not here.
_WRITERS = {
    number: _writer(name, unit_ns) for number, (name, unit_ns) in NAMES.items() if name not in GIVEN
}
