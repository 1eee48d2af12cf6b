"""
Forms that a value takes in text: one printable line, ISO 8601 times, plain JSON.

Pure, and below `measurement`, whose stream and CSV forms are made of these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime, timezone

#: What a person still reads in a table; a longer line is cut.
MAX_LINE_CHARS = 300
#: Records are three levels deep; msgpack allows more levels than Python's recursion does.
MAX_JSON_DEPTH = 16

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
    Give a text of as many characters that a terminal shows, and none that it obeys.

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


def json_ready(value: object, *, depth: int = 0) -> object:
    """
    Give the value as JSON can hold it: no NaN, no bytes, no msgpack extension, not too deep.

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
