"""
Forms that a value takes in text: one printable line, ISO 8601 times, plain JSON.

What people read has one form wherever it is printed: `in_bytes`, `in_time`, `in_offset`, `some`.

Pure, and below `measurement`, whose stream and CSV forms are made of these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

#: What a person still reads in a table; a longer line is cut.
MAX_LINE_CHARS = 300
#: Records are three levels deep; msgpack allows more levels than Python's recursion does.
MAX_JSON_DEPTH = 16

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_US = timedelta(microseconds=1)
#: Stricter than `datetime.fromisoformat`, which takes more forms from Python 3.11 on.
_ISO_UTC = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")


def one_line(text: str) -> str:
    """
    Make a text one printable line of at most `MAX_LINE_CHARS` characters.

    >>> one_line('no route\\n to host\\x00')
    'no route to host?'
    """
    if not text.isprintable():
        text = printable(" ".join(text.split()))
    return text if len(text) <= MAX_LINE_CHARS else text[: MAX_LINE_CHARS - 1] + "…"


def printable(text: str) -> str:
    """
    Return a text of as many characters that a terminal shows, and none that it obeys.

    >>> printable('\x1b[31mred')
    '?[31mred'
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "?" for char in text)


def iso_utc(instant: datetime) -> str:
    """
    Format an aware time as ISO 8601 UTC with milliseconds.

    >>> iso_utc(datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc))
    '2026-01-02T03:04:05.678Z'
    """
    text = instant.astimezone(timezone.utc).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def parse_iso_utc(text: str) -> datetime:
    """
    Read what `iso_utc` wrote.

    Raises:
        ValueError: It is of another form, or no date.

    >>> parse_iso_utc('2026-01-02T03:04:05.678Z').microsecond
    678000
    """
    if not _ISO_UTC.fullmatch(text):
        raise ValueError(f"time ({text[:40]!r}) must look like 2026-01-02T03:04:05.678Z")
    return datetime.fromisoformat(text[:-1] + "+00:00")


def epoch_us(instant: datetime) -> int:
    """Return an aware time as microseconds since 1970, UTC."""
    return (instant - _EPOCH) // _US


def of_epoch_us(value: object) -> datetime:
    """
    Read what `epoch_us` wrote.

    Raises:
        ValueError: It is no integer.
        OverflowError: It is in no year from 1 to 9999.

    >>> iso_utc(of_epoch_us(1767323045678901))
    '2026-01-02T03:04:05.678Z'
    """
    if type(value) is not int:
        raise ValueError(f"time ({str(value)[:40]!r}) must be microseconds since 1970")
    return _EPOCH + timedelta(microseconds=value)


def json_ready(value: object, *, depth: int = 0) -> object:
    """
    Return the value as JSON can hold it: no NaN, no bytes, no msgpack extension, not too deep.

    >>> json_ready({'rtts_ms': [1.5, float('nan')], 'raw': b'x'})
    {'rtts_ms': [1.5, None], 'raw': "b'x'"}
    """
    if isinstance(value, (dict, list, tuple)) and depth == MAX_JSON_DEPTH:
        return "…"
    if isinstance(value, dict):
        return {str(key): json_ready(item, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item, depth=depth + 1) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


def some(names: Iterable[str], most: int = 6) -> str:
    """
    List names, not too many.

    >>> some(["a", "b"]), some("abcdefgh", 3)
    ('a, b', 'a, b, c and 5 more')
    """
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def in_bytes(count: float) -> str:
    """
    Format a size for people; in binary units always, as memory and its limits are.

    >>> in_bytes(512), in_bytes(1536), in_bytes(268435456), in_bytes(5 * 2**30)
    ('512 B', '1.5 KiB', '256 MiB', '5.0 GiB')
    """
    power = 0
    while count >= 1024 and power < 4:
        count, power = count / 1024, power + 1
    digits = 1 if power and count < 10 else 0
    return f"{count:.{digits}f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def in_time(seconds: float | None) -> str:
    """
    Format a duration or an age for people: the two largest units that it has.

    >>> [in_time(s) for s in (None, 0.0123, 2.5, 7.26, 42.3)]
    ['?', '0.012 s', '2.5 s', '7.3 s', '42 s']
    >>> [in_time(s) for s in (59.7, 300, 75, 7200, 5400, 86402, 3.2 * 86400)]
    ['1 min', '5 min', '1 min 15 s', '2 h', '1 h 30 min', '1 d', '3 d 4 h']
    """
    if seconds is None:
        return "?"
    if seconds < 59.5:
        return f"{round(seconds, 3):.2g} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(index for index, (_, size) in enumerate(units) if seconds + 0.5 >= size)
    counts, rest = [], round(seconds)
    for name, size in units[first : first + 2]:
        count, rest = divmod(rest, size)
        counts += [f"{count} {name}"] if count else []
    return " ".join(counts)


def in_offset(offset_ms: float, uncertainty_ms: float | None) -> str:
    """
    Format a clock's offset for people, with how far it may be wrong where that is known.

    >>> in_offset(2.5, 0.26), in_offset(-537.0, None)
    ('+2.5 ± 0.3 ms', '-537.0 ms')
    """
    doubt = "" if uncertainty_ms is None else f" ± {uncertainty_ms:.1f}"
    return f"{offset_ms:+.1f}{doubt} ms"
