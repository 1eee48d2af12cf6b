"""
The line of a CSV that a stream entry makes, with no object for what is in none of its cells.

Nearly all entries are series of questions, written as nodes write them. `usual_lines` reads
these and no others: whatever it does not expect is `csv_row`'s to accept or to refuse.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from math import isfinite
from operator import itemgetter
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
from worker.model.record.numbers import ADDRESS, ERROR, FORM, NAMES, NUMBERS, RTTS_MS, STARTED_AT
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


def usual_lines(entries: Iterable[tuple[bytes, list[bytes]]]) -> list[str | None]:
    """
    Return the line of each entry, that of `csv_row`; None where it takes `csv_row` to tell.

    Args:
        entries: The id of each, its last cell; names and values in turn, as Redis sends them.
    """
    lines: list[str | None] = []
    for stream_id, fields in entries:
        try:
            lines.append(_line(stream_id, fields))
        except _NOT_USUAL:
            lines.append(None)
    return lines


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
_MEAN = STATISTICS.index("rtt_mean_ms") - len(STATISTICS)
#: Below, Python writes a float with an exponent; from there on, a table would be long.
_LEAST_NS, _MOST_NS = 100, 10**9
_NS_PER_MS, _NS_PER_S = 1e6, 1e9
_WHOLE = [f"{number}." for number in range(_MOST_NS // 10**6)]
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
    # A float may equal a number of a name.
    if type(stored) is not dict or type(sum(stored)) is not int:
        raise _UnusualError
    shape = stored[FORM], *stored
    read, others, order, same = _SHAPES[shape]
    at, address, samples, *times = read(stored)
    error = stored.get(ERROR, "")
    if type(at) is not int or type(error) is not str or type(samples) is not list:
        raise _UnusualError
    # As `forms.derive` does.
    count, lost = len(samples), samples.count(None)
    found: Sequence[Any] = statistics_in_ns(samples) if lost else whole_series_in_ns(samples)
    # Among lesser ones there may be a Boolean, which is an int to Python.
    if (lost or found[0] < _LEAST_NS) and not NS_OR_LOST.issuperset(map(type, samples)):
        raise _UnusualError
    times += found
    texts = _in_ms(times)
    latency_ms = latency.decode()
    if latency_ms != texts[_MEAN]:
        latency_ms = _number(latency)
    for number, writers in others:
        value = stored[number]
        texts.append(writers[type(value)](value))
    second, us = divmod(at, 1_000_000)
    return (
        f"{_SECONDS[second]}{_THREE[us // 1000]}Z,{_TEXTS[address]},"
        f"{latency_ms},{_NUMBERS[loss]},{_NUMBERS[throughput]},"
        f"{_NAMES[source]},{_NAMES[target]},{_NAMES[probe]},{_NAMES[run]},{_OUTCOMES[outcome]},"
        f"{_quoted(one_line(error)) if error else ''},{count},{count - lost},"
        f"{','.join(order((*same, *texts)))},{stream_id.decode()}\n"
    )


def _in_ms(times: Sequence[int | None]) -> list[str]:
    """
    Write nanoseconds as the floats of milliseconds that they are; None as nothing.

    >>> _in_ms([1_500_000, 12_345_678, 99, None])
    ['1.5', '12.345678', '9.9e-05', '']
    """
    texts = []
    whole, three, last_digits = _WHOLE, _THREE, _LAST
    for ns in times:
        if ns is None:
            texts.append("")
        elif ns < _LEAST_NS or ns >= _MOST_NS:
            if type(ns) is not int:
                raise _UnusualError
            texts.append(repr(ns / _NS_PER_MS))
        else:
            us = ns // 1000
            # By tables: half the time of repr.
            if last := ns % 1000:
                texts.append(f"{whole[us // 1000]}{three[us % 1000]}{last_digits[last]}")
            else:
                texts.append(whole[us // 1000] + last_digits[us % 1000])
    return texts


def _in_s(ns: int) -> str:
    """
    Write nanoseconds as the float of seconds that they are.

    >>> _in_s(1_050_901_731), _in_s(1_500_000_000), _in_s(99_999)
    ('1.050901731', '1.5', '9.9999e-05')
    """
    us = ns // 1000
    last = ns - us * 1000
    if not last or us < _LEAST_NS or ns >= 10**15:
        return repr(ns / _NS_PER_S)
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
    of_int: Callable[[int], str] = _in_s if unit_ns == _NS_PER_S else str
    return {int: of_int, float: _finite, str: _TEXTS.__getitem__, type(None): _nothing}


#: By number of a name. What others are derived from is not here.
_WRITERS = {
    number: _writers(name, unit_ns)
    for number, (name, unit_ns) in NAMES.items()
    if name not in GIVEN
}


class _Shape(NamedTuple):
    """
    How records of a form with certain numbers become cells of `DETAIL_COLUMNS` from the third on.

    Attributes:
        read: Takes when it began, its address, its samples, and the times in milliseconds that have
            a cell; these are integers in all usual records.
        others: Numbers of what else there is, and their writers by type.
        order: Takes the cells of `same`, those times, `STATISTICS` and `others` in their order.
        same: Cells that are the same in all, neighbours as one text.
    """

    read: Callable[[dict[Any, Any]], tuple[Any, ...]]
    others: list[tuple[int, Mapping[type, Callable[[Any], str]]]]
    order: Callable[[tuple[str, ...]], tuple[str, ...]]
    same: list[str]


def _shape(of: tuple[int, ...]) -> _Shape:
    """Return the shape of a form and numbers; raises one of `_NOT_USUAL` for what has none."""
    form = FORMS[of[0]]
    numbers = [number for number in of[1:] if number not in _OF_ALL]
    if not form.has_trips or _COUNTS.intersection(numbers):
        raise _UnusualError
    times = [number for number in numbers if number in _TIMES]
    others = [number for number in numbers if number not in _TIMES]
    names = [NAMES[number][0] for number in (*times, *others)]
    varying = [*names[: len(times)], *STATISTICS, *names[len(times) :]]
    same: list[str] = []
    order: list[int] = []
    columns = DETAIL_COLUMNS[len(_COUNTS) :]
    for is_same, some in groupby(columns, lambda name: name not in varying):
        if is_same:
            order.append(len(same))
            same.append(",".join(_default_cells(form, some)))
        else:
            order += (varying.index(name) - len(varying) for name in some)
    return _Shape(
        read=itemgetter(STARTED_AT, ADDRESS, RTTS_MS, *times),
        others=[(number, _WRITERS[number]) for number in others],
        order=itemgetter(*order),
        same=same,
    )


def _default_cells(form: Form, names: Iterable[str]) -> list[str]:
    return ["" if cell is None else str(cell) for cell in as_cells(map(form.defaults.get, names))]


#: They begin `DETAIL_COLUMNS`, and follow from the samples in all usual records.
_COUNTS = frozenset({NUMBERS["sent"], NUMBERS["received"]})
_TIMES = frozenset(
    number
    for number, (name, unit_ns) in NAMES.items()
    if unit_ns == _NS_PER_MS and name in DETAIL_COLUMNS
)
_OF_ALL = frozenset({FORM, STARTED_AT, ADDRESS, ERROR, RTTS_MS})
_SHAPES = _Kept(_shape, MOST_SHAPES)
