"""
What the wire version before wrote of a record: all by name, most of it in fields of their own.

Entries of a stream and frames of an outbox that it left are read, and never written.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from worker.model.fields import parse_text, unpack_detail
from worker.model.text import parse_iso_utc

VERSION = b"1"
_NAMES = frozenset({str})


class Parts(NamedTuple):
    """What a record had in fields of its own, or has in its detail now, and the other detail."""

    started_at: datetime
    address: str
    error: str
    detail: dict[str, Any]


def parts(fields: Mapping[bytes, bytes]) -> Parts:
    """
    Read what is elsewhere today; a number of the record that is absent had no field.

    Raises:
        KeyError, TypeError, ValueError, msgpack.UnpackException: It is damaged.
    """
    detail = unpack_detail(fields[b"detail"])
    if not _NAMES.issuperset(map(type, detail)):
        raise ValueError("detail is not a map of names")
    return Parts(
        started_at=parse_iso_utc(fields[b"started_at"].decode()),
        address=parse_text(fields[b"address"]),
        error=fields[b"error"].decode(),
        detail=detail,
    )
