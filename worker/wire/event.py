"""
An event: a dated fact of a node that is no measurement, such as another address.

Pure. It is an entry of its own kind in the stream of results, which differs from a measurement by
`kind`; readers of measurements pass over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worker.model.errors import WireError
from worker.model.fields import Cell, check_version, parse_text
from worker.model.text import MAX_LINE_CHARS, iso_utc, one_line, parse_iso_utc
from worker.model.version import WIRE_VERSION

KIND = "event"
COLUMNS = ("time", "node", "what", "old", "new", "stream_id")

_READABLE, _KIND = {str(WIRE_VERSION).encode()}, KIND.encode()


@dataclass(frozen=True, kw_only=True)
class Event:
    """
    What changed at a node.

    Attributes:
        time: When the node found it, on its own clock; aware, UTC.
        node: Whose.
        what: Field of the node's record, such as `address` or `iperf3`.
        old: What was true before; empty is nothing, such as no iperf3.
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
            WireError: It is not an event, or one of another version.
        """
        try:
            check_version(fields, "the event", _READABLE)
            if not is_event(fields):
                raise ValueError("of another kind")
            return cls(
                time=parse_iso_utc(fields[b"time"].decode()),
                node=parse_text(fields[b"node"]),
                what=parse_text(fields[b"what"]),
                old=parse_text(fields[b"old"], MAX_LINE_CHARS),
                new=parse_text(fields[b"new"], MAX_LINE_CHARS),
            )
        except (KeyError, ValueError) as exc:
            raise WireError(f"stream entry is not an event: {one_line(repr(exc))}") from exc

    def to_row(self, stream_id: str) -> list[Cell]:
        """Return the CSV cells, in the order of `COLUMNS`."""
        return [iso_utc(self.time), self.node, self.what, self.old, self.new, stream_id]

    def to_json(self, stream_id: str) -> dict[str, Any]:
        """Return one JSON-ready object with the names of `COLUMNS`."""
        return dict(zip(COLUMNS, self.to_row(stream_id), strict=True))


def is_event(fields: Mapping[bytes, bytes]) -> bool:
    """Whether a stream entry is an event, of whatever version."""
    return fields.get(b"kind") == _KIND
