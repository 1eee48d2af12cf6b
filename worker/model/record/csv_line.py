"""
The line of a CSV that a stream entry makes, with no object for what is in none of its cells.

Nearly all entries are series of questions, written as nodes write them. `usual_line` reads
these and no others: whatever it does not expect is `csv_row`'s to accept or to refuse.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple, TypeVar

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
from worker.model.record.forms import FORMS, GIVEN, NS_OR_LOST, Form
from worker.model.record.numbers import ADDRESS, ERROR, FORM, NAMES, RTTS_MS, STARTED_AT
from worker.model.rtt import STATISTICS, statistics_in_ns, whole_series_in_ns
from worker.model.text import iso_utc, of_epoch_us, one_line

#: The names and addresses of a mesh of a thousand nodes, or the seconds of three hours.
MOST_KEPT = 10_000
#: Which numbers stand in a record, in which order.
MOST_SHAPES = 500

Made = TypeVar("Made")


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


class _Kept(dict[Any, Made]):
    """What is made of values that come again and again; others are made, or raise."""

    def __init__(self, make: Callable[[Any], Made], most: int = MOST_KEPT) -> None:
        super().__init__()
        self._make, self._most = make, most

    def __missing__(self, value: Any) -> Made:
        made = self._make(value)
        if len(self) >= self._most:
            self.clear()
        self[value] = made
        return made


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
_MEAN = STATISTICS.index("rtt_mean_ms")
#: Below, Python writes a float with an exponent; from there on, it may not write each digit.
_LEAST_NS, _MOST_NS = 100, 10**15
_WHOLE = [f"{number}." for number in range(1000)]
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
    numbers = tuple(stored)
    cells, sent, received, least, places = _SHAPES[stored[FORM], numbers]
    at, address, samples = stored[STARTED_AT], stored[ADDRESS], stored[RTTS_MS]
    error = stored.get(ERROR, "")
    # A float may equal a number of a name.
    if type(at) is not int or type(error) is not str or type(sum(numbers)) is not int:
        raise _UnusualError
    if type(samples) is not list:
        raise _UnusualError
    cells = cells.copy()
    # As `forms.derive` does.
    count = len(samples)
    cells[sent] = str(count)
    lost, statistics = _statistics(samples)
    cells[received] = str(count - lost)
    cells[least : least + len(statistics)] = statistics
    for number, place, of_int, writers in places:
        value = stored[number]
        cells[place] = of_int(value) if type(value) is int else writers[type(value)](value)
    cells[-1] = stream_id.decode()
    second, us = divmod(at, 1_000_000)
    latency_ms = latency.decode()
    if latency_ms != statistics[_MEAN]:
        latency_ms = _number(latency)
    return (
        f"{_SECONDS[second]}{_THREE[us // 1000]}Z,{_TEXTS[address]},"
        f"{latency_ms},{_NUMBERS[loss]},{_NUMBERS[throughput]},"
        f"{_NAMES[source]},{_NAMES[target]},{_NAMES[probe]},{_NAMES[run]},{_OUTCOMES[outcome]},"
        f"{_quoted(one_line(error)) if error else ''},{','.join(cells)}\n"
    )


def _statistics(samples: list[Any]) -> tuple[int, list[str]]:
    """Return how many samples are lost, and the cells of the statistics."""
    try:
        is_whole = type(sum(samples)) is int and bool(samples)
    except TypeError:
        is_whole = False
    if is_whole:
        whole = whole_series_in_ns(samples)
        # Among lesser ones there may be a Boolean, which is an int to Python.
        if whole[0] >= _LEAST_NS:
            return 0, ["" if ns is None else _in_ms(ns) for ns in whole]
    if not NS_OR_LOST.issuperset(map(type, samples)):
        raise _UnusualError
    found = statistics_in_ns(samples)
    return samples.count(None), ["" if ns is None else _in_ms(ns) for ns in found]


def _in_ms(ns: int) -> str:
    """
    Write nanoseconds as the float of milliseconds that they are.

    >>> _in_ms(1_500_000), _in_ms(12_345_678), _in_ms(99), _in_ms(0)
    ('1.5', '12.345678', '9.9e-05', '0.0')
    """
    if not _LEAST_NS <= ns < _MOST_NS:
        return repr(ns / 1e6)
    us = ns // 1000
    ms = us // 1000
    whole = _WHOLE[ms] if ms < 1000 else f"{ms}."
    if last := ns - us * 1000:
        return f"{whole}{_THREE[us - ms * 1000]}{_LAST[last]}"
    return whole + _LAST[us - ms * 1000]


def _in_s(ns: int) -> str:
    """
    Write nanoseconds as the float of seconds that they are.

    >>> _in_s(1_050_901_731), _in_s(1_500_000_000), _in_s(99_999)
    ('1.050901731', '1.5', '9.9999e-05')
    """
    us = ns // 1000
    last = ns - us * 1000
    if not last or us < _LEAST_NS or ns >= _MOST_NS:
        return repr(ns / 1e9)
    ms = us // 1000
    s = ms // 1000
    return f"{s}.{_THREE[ms - s * 1000]}{_THREE[us - ms * 1000]}{_LAST[last]}"


def _finite(value: float) -> str:
    if not isfinite(value):
        raise _UnusualError
    return repr(value)


def _nothing(_: object) -> str:
    return ""


def _writers(name: str, unit_ns: float) -> dict[type, Callable[[Any], str]]:
    """Return how values of a name are written, by their type."""
    if name not in DETAIL_COLUMNS:
        return dict.fromkeys((int, float, str, type(None)), _nothing)
    of_int: Callable[[int], str] = {1e6: _in_ms, 1e9: _in_s}.get(unit_ns, str)
    return {int: of_int, float: _finite, str: _TEXTS.__getitem__, type(None): _nothing}


#: By number of a name. What others are derived from is not here.
_WRITERS = {
    number: _writers(name, unit_ns)
    for number, (name, unit_ns) in NAMES.items()
    if name not in GIVEN
}


class _Shape(NamedTuple):
    """
    Where values go that are in records of a form with certain numbers.

    Attributes:
        cells: Of the detail, neighbours that are the same in all as one text; the last, the id.
        sent: The place of a cell; so are `received`, and `least`, the first of the statistics.
        places: Of each number its place, the last where it has no cell, and its writers:
            of integers, which nearly all are, and by type.
    """

    cells: list[str]
    sent: int
    received: int
    least: int
    places: list[tuple[int, int, Callable[[Any], str], Mapping[type, Callable[[Any], str]]]]


def _shape(of: tuple[int, tuple[int, ...]]) -> _Shape:
    """Return the shape of a form and numbers; raises one of `_NOT_USUAL` for what has none."""
    form = FORMS[of[0]]
    if not form.has_trips:
        raise _UnusualError
    numbers = [number for number in of[1] if number not in _OF_ALL]
    varying = {"sent", "received", *STATISTICS, *(NAMES[number][0] for number in numbers)}
    cells: list[str] = []
    places: dict[str, int] = {}
    is_same = False
    for name, cell in zip(DETAIL_COLUMNS, _default_cells(form), strict=True):
        if name in varying:
            places[name] = len(cells)
        if is_same and name not in varying:
            cells[-1] += f",{cell}"
        else:
            cells.append(cell)
        is_same = name not in varying
    return _Shape(
        cells=[*cells, ""],
        sent=places["sent"],
        received=places["received"],
        least=places[STATISTICS[0]],
        places=[
            (number, places.get(NAMES[number][0], -1), _WRITERS[number][int], _WRITERS[number])
            for number in numbers
        ],
    )


def _default_cells(form: Form) -> list[str]:
    cells = as_cells(map(form.defaults.get, DETAIL_COLUMNS))
    return ["" if cell is None else str(cell) for cell in cells]


_OF_ALL = frozenset({FORM, STARTED_AT, ADDRESS, ERROR, RTTS_MS})
_SHAPES = _Kept(_shape, MOST_SHAPES)
