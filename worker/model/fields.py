"""
Reads the fields of one stream entry, refusing what no node of ours has written.

Pure. Whatever is accepted fits in one line of a CSV: a collector's row is a line of its file.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import msgpack

from worker.model.errors import OtherWire
from worker.model.version import WIRE_VERSION

#: A detail larger than this is refused: 1,000 echoes take about 9 kB.
MAX_DETAIL_BYTES = 256 * 1024
#: Names are at most 64 characters and a DNS name 253; longer text in a record is not ours.
MAX_TEXT_CHARS = 255

#: A cell of a CSV row; csv.writer leaves None empty and writes a float so that it reads back.
Cell = str | int | float | None

_NAME_TYPES = frozenset({str})
_NUMBER_TYPES = frozenset({type(None), int, float})


def check_version(fields: Mapping[bytes, bytes], thing: str, readable: Container[bytes]) -> None:
    """Let an entry of these wire versions pass; another one raises OtherWire, none KeyError."""
    if (version := fields[b"v"]) not in readable:
        shown = version[:20].decode(errors="replace")
        raise OtherWire(thing, int(shown) if shown.isdecimal() else shown, WIRE_VERSION)


def parse_text(value: bytes, most_chars: int = MAX_TEXT_CHARS) -> str:
    """
    Read a short printable text.

    Raises:
        ValueError: It is not UTF-8, not printable, or too long.
    """
    text = value.decode()
    if not text.isprintable() or len(text) > most_chars:
        raise ValueError(f"text ({text[:40]!r}) must be printable and short")
    return text


def parse_number(fields: Mapping[bytes, bytes], name: bytes) -> float | None:
    """
    Read a finite number, None when the field is absent.

    Raises:
        ValueError: It is no number, or not finite.
    """
    if name not in fields:
        return None
    value = float(fields[name])
    if not math.isfinite(value):
        raise ValueError(f"{name.decode()} ({value}) must be finite")
    return value


def number_or_none(raw: bytes | str | None) -> float | None:
    """
    Read a finite number that Redis keeps as text; None when it is invalid.

    >>> number_or_none(b"1.5"), number_or_none("nan"), number_or_none(None)
    (1.5, None, None)
    """
    try:
        value = float(raw or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def parse_detail(packed: bytes, columns: Sequence[str]) -> tuple[dict[str, Any], list[Any]]:
    """
    Read a detail, with the values of those of its names that are CSV columns, None where absent.

    Raises:
        ValueError: Too large, no map of names, or a column's value does not fit in a cell.
        TypeError: A key that cannot be one.
        msgpack.UnpackException: No msgpack.
    """
    if len(packed) > MAX_DETAIL_BYTES:
        raise ValueError(f"detail ({len(packed)} bytes) is over {MAX_DETAIL_BYTES}")
    detail = msgpack.unpackb(packed)
    if not isinstance(detail, dict) or not _NAME_TYPES.issuperset(map(type, detail)):
        raise ValueError("detail is not a map of names")
    values = list(map(detail.get, columns))
    # One look at all values of nearly every record: this is the collector's inner loop.
    if _NUMBER_TYPES.issuperset(map(type, values)) and math.isfinite(sum(filter(None, values))):
        return detail, values
    for name, value in zip(columns, values, strict=True):
        _check_cell(name, value)
    return detail, values


def as_cells(values: Iterable[Any]) -> list[Cell]:
    """
    Write values as CSV cells.

    >>> as_cells([1.5, True, None])
    [1.5, 'true', None]
    """
    cells = list(values)
    if bool in map(type, cells):
        return [str(cell).lower() if isinstance(cell, bool) else cell for cell in cells]
    return cells


def _check_cell(name: str, value: object) -> None:
    if value is None or type(value) in (bool, int):
        return
    if isinstance(value, float) and math.isfinite(value):
        return
    if isinstance(value, str) and value.isprintable() and len(value) <= MAX_TEXT_CHARS:
        return
    raise ValueError(f"{name} ({str(value)[:40]!r}) must be a finite number or short text")


def exact_count(value: object) -> int:
    """
    Let a number that Lua holds exactly pass.

    Raises:
        ValueError: It is not one.
    """
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError(f"{str(value)[:40]!r} is not a count")
    return value
