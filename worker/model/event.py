"""
An event: a dated fact of a node that is no measurement, such as another address.

Pure. It is an entry of its own kind in the stream of results, told from a measurement by `kind`;
who reads measurements passes over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worker.model.errors import OtherWire, WireError
from worker.model.fields import Cell, parse_text
from worker.model.text import MAX_LINE_CHARS, iso_utc, one_line, parse_iso_utc
from worker.model.version import WIRE_VERSION

KIND = "event"
COLUMNS = ("time", "node", "what", "old", "new", "stream_id")

_VERSION, _KIND = str(WIRE_VERSION).encode(), KIND.encode()


@dataclass(frozen=True, kw_only=True)
class Event:
    """
    What changed at a node.

    Attributes:
        time: When the node found it, on its own clock; aware, UTC.
        node: Whose.
        what: Field of the node's record, such as `address` or `iperf3`.
        old: What was told before; empty is nothing, such as no iperf3.
        new: What is true since.
    """

    time: datetime
    node: str
    what: str
    old: str
    new: str

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Event:
        """
        Read a stream entry's fields; whatever is accepted makes a CSV row of one line.

        Raises:
            WireError: It is none, or of another version.
        """
        try:
            if fields[b"v"] != _VERSION:
                raise OtherWire("the event", fields[b"v"].decode(errors="replace"), WIRE_VERSION)
            if not is_event(fields):
                raise ValueError("of another kind")
            return cls(
                time=parse_iso_utc(fields[b"time"].decode()),
                node=parse_text(fields[b"node"]),
                what=parse_text(fields[b"what"]),
                old=_value(fields[b"old"]),
                new=_value(fields[b"new"]),
            )
        except (KeyError, ValueError) as exc:
            raise WireError(f"stream entry is not an event: {one_line(repr(exc))}") from exc

    def to_row(self, stream_id: str) -> list[Cell]:
        """Give the CSV cells, in the order of `COLUMNS`."""
        return [iso_utc(self.time), self.node, self.what, self.old, self.new, stream_id]

    def to_json(self, stream_id: str) -> dict[str, Any]:
        """Give one JSON-ready object with the names of `COLUMNS`."""
        return dict(zip(COLUMNS, self.to_row(stream_id), strict=True))


def is_event(fields: Mapping[bytes, bytes]) -> bool:
    """Tell whether a stream entry is an event, of whatever version."""
    return fields.get(b"kind") == _KIND


def _value(raw: bytes) -> str:
    text = raw.decode()
    if not text.isprintable() or len(text) > MAX_LINE_CHARS:
        raise ValueError(f"value ({text[:40]!r}) must be printable and short")
    return text
