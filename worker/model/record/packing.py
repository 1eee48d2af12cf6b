"""
A record's `detail`, packed: a msgpack map of what a reader could not derive, and back.

Keys are `numbers`, or names. By number, a time is an integer of nanoseconds, or a float of the
name's own unit; by name, a value is as it is. `restored` is what both sides agree on: the writer
stores where it would be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from worker.model.csv_columns import DETAIL_COLUMNS
from worker.model.detail import LIMIT, Detail, of_values, read_detail
from worker.model.fields import MAX_TEXT_CHARS, cells_of
from worker.model.record.forms import FORM_OF, FORMS, GIVEN, NS_OR_LOST, Form, derive
from worker.model.record.numbers import FORM, NAMES, NUMBERS, RTTS_MS

#: Every whole number below is a float of its own.
_MOST_NS = 2.0**53
_SERIES = frozenset({list, tuple})
_MS_OR_LOST = frozenset({float, type(None)})
_NONE = object()


def stored(detail: Detail) -> dict[int | str, Any]:
    """Return what has to be written of a detail."""
    form = FORM_OF.get(type(detail))
    if form is None:
        return dict(_entry(name, value) for name, value in detail.to_map().items())
    values = vars(detail)
    if detail.more:
        values = {**values, **detail.more}
    given: dict[int | str, Any] = {FORM: form.number}
    for name in GIVEN:
        if name in values and not _same(values[name], form.defaults.get(name, _NONE)):
            key, value = _entry(name, values[name])
            given[key] = value
    assumed = restored(given.copy())[1]
    assumed["more"], assumed["rtts_ms"] = detail.more, values.get("rtts_ms")
    for name, value in values.items():
        other = assumed.get(name, _NONE)
        # What `_same` says of nearly all, without a call of it.
        if value is other or (value and value == other and type(value) is type(other)):
            continue
        if value != other or not _same(value, other):
            key, value = _entry(name, value)
            given[key] = value
    return given


def restored(stored: dict[Any, Any]) -> tuple[Form | None, dict[str, Any], Any]:
    """
    Return a detail's form, its values by name, and its samples as they are stored.

    The inner loop of whatever reads the stream: the samples are in no cell, and are not among the
    values. Takes what is of the record itself for taken out, and takes out form and samples.

    Raises:
        KeyError: A form or a number that wire version 2 has not.
        ValueError: A key that is neither a number nor a name.
    """
    samples = stored.pop(RTTS_MS, None)
    if FORM in stored:
        form = FORMS[stored.pop(FORM)]
        values = dict(form.defaults)
        if form.has_trips and type(samples) is list:
            derive(values, form, stored, samples)
    else:
        form, values = None, {}
    for key, value in stored.items():
        if type(key) is int:
            name, unit_ns = NAMES[key]
            values[name] = value / unit_ns if unit_ns and type(value) is int else value
        elif type(key) is str:
            values[key] = value
        else:
            raise ValueError("a key is neither a number nor a name")
    return form, values, samples


def read(stored: dict[Any, Any], other: type[Detail]) -> Detail:
    """
    Read a detail from what is stored of it; one without a form is of the class `other`.

    Raises:
        KeyError: As `restored`.
        ValueError: As `restored`, or a value does not fit in its cell of a CSV.
    """
    form, values, samples = restored(stored)
    if form is not None and _is_sound(form, stored, values, samples):
        if samples:
            values["rtts_ms"] = tuple([ns if ns is None else ns / 1e6 for ns in samples])
        return of_values(form.kind, {**values, "more": {}})
    cells_of(values, DETAIL_COLUMNS)
    if samples is not None and "rtts_ms" not in stored:
        values["rtts_ms"] = _in_ms(samples)
    plain = {name: list(v) if type(v) is tuple else v for name, v in values.items()}
    return read_detail(other if form is None else form.kind, plain)


def _is_sound(
    form: Form, stored: Mapping[Any, Any], values: Mapping[str, Any], samples: Any
) -> bool:
    """Whether all that is stored fits its field, and a cell, without doubt; nearly all does."""
    scalars = form.kind.scalars()
    for name in form.needed:
        if values[name] is None:
            return False
    for key in stored:
        name = NAMES[key][0] if type(key) is int else key
        value = values[name]
        kind = type(value)
        if name not in scalars or kind not in scalars[name]:
            return False
        if kind is float and not -LIMIT < value < LIMIT:
            return False
        if kind is str and not (value.isprintable() and len(value) <= MAX_TEXT_CHARS):
            return False
    if not form.has_trips:
        return samples is None
    is_series = type(samples) is list and NS_OR_LOST.issuperset(map(type, samples))
    return (is_series or samples is None) and 0 <= values["received"] <= values["sent"]


def _in_ms(samples: Any) -> Any:
    if type(samples) is not list:
        return samples
    return [each / 1e6 if type(each) is int else each for each in samples]


def _entry(name: str, value: Any) -> tuple[int | str, Any]:
    """Return the key and the value with which a reader restores just this one."""
    number = NUMBERS.get(name)
    if number is None:
        return name, value
    unit_ns = NAMES[number][1]
    if number == RTTS_MS:
        if type(value) in _SERIES and _MS_OR_LOST.issuperset(map(type, value)):
            return number, [ms if ms is None else _in_ns(ms, unit_ns) for ms in value]
        return name, value
    if not unit_ns or value is None:
        return number, value
    return (number, _in_ns(value, unit_ns)) if type(value) is float else (name, value)


def _in_ns(value: float, unit_ns: float) -> float:
    """Return a time in whole nanoseconds; as it is where that is another number."""
    if not -_MOST_NS < (ns := value * unit_ns) < _MOST_NS:
        return value
    whole = round(ns)
    is_exact = whole / unit_ns == value and (whole or math.copysign(1.0, value) > 0)
    return whole if is_exact else value


def _same(one: Any, other: Any) -> bool:
    """Whether two values are written alike, which 1, 1.0 and True are not, nor are 0.0 and -0.0."""
    if type(one) is not type(other) or one != other:
        return False
    return (
        type(one) is not float or one != 0 or math.copysign(1.0, one) == math.copysign(1.0, other)
    )
