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

#: A detail larger than this is refused: 1,000 echoes take about 5 kB.
MAX_DETAIL_BYTES = 256 * 1024
#: Names are at most 64 characters and a DNS name 253; longer text in a record is not ours.
MAX_TEXT_CHARS = 255

#: A cell of a CSV row; csv.writer leaves None empty and writes a float so that it reads back.
Cell = str | int | float | None

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
    return short_text(value.decode(), most_chars)


def short_text(text: object, most_chars: int = MAX_TEXT_CHARS) -> str:
    """
    Let a short printable text pass.

    Raises:
        ValueError: It is no text, not printable, or too long.
    """
    if type(text) is not str or not text.isprintable() or len(text) > most_chars:
        raise ValueError(f"text ({str(text)[:40]!r}) must be printable and short")
    return text


def parse_number(text: bytes) -> float | None:
    """
    Read a finite number, None of an empty text.

    Raises:
        ValueError: It is no number, or not finite.

    >>> parse_number(b"100"), parse_number(b"")
    (100.0, None)
    """
    if not text:
        return None
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number ({value}) must be finite")
    return value


def in_text(value: float | None) -> str:
    """
    Write what `parse_number` reads, a whole number as one.

    >>> in_text(12.5), in_text(100.0), in_text(None)
    ('12.5', '100', '')
    """
    return "" if value is None else repr(value).removesuffix(".0")


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


def unpack_detail(packed: bytes) -> dict[Any, Any]:
    """
    Unpack a detail.

    Raises:
        ValueError: Too large, or no map.
        TypeError: A key that cannot be one.
        msgpack.UnpackException: No msgpack.
    """
    if len(packed) > MAX_DETAIL_BYTES:
        raise ValueError(f"detail ({len(packed)} bytes) is over {MAX_DETAIL_BYTES}")
    detail = msgpack.unpackb(packed, strict_map_key=False)
    if type(detail) is not dict:
        raise ValueError("detail is no map")
    return detail


def cells_of(values: Mapping[str, Any], columns: Sequence[str]) -> list[Cell]:
    """
    Write a detail's values of these names as CSV cells, None where absent.

    Raises:
        ValueError: One does not fit in a cell.
    """
    cells = list(map(values.get, columns))
    # One look at all values of nearly every record: this is the collector's inner loop.
    if _NUMBER_TYPES.issuperset(map(type, cells)) and math.isfinite(sum(filter(None, cells))):
        return cells
    for name, value in zip(columns, cells, strict=True):
        _check_cell(name, value)
    return as_cells(cells)


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
