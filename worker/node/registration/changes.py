"""
Reports what has changed at a node as events, each once, whatever is killed when.

What was reported is kept in the node's record in Redis, where one script compares, adds and notes;
so a retry reports nothing twice, and a restart reports what changed meanwhile.
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone

import redis

from worker.model import version
from worker.model.names import NodeName
from worker.model.text import iso_utc, one_line
from worker.wire import keyspace
from worker.wire.node_record import TOLD, TOLD_AT, WATCHED, Node
from worker.wire.room import StreamFull, add_results

logger = logging.getLogger(__name__)

#: What flaps is reported once a minute, as it is then.
LEAST_S = 60
#: A heartbeat waits no longer for the mesh's pace.
LONGEST_WAIT_S = 1.0


class Changes:
    """The events of one node."""

    def __init__(self, node: NodeName) -> None:
        """Begin with nothing reported."""
        self.node = node
        self._reported: dict[str, str] = {}
        self._begun: dict[str, str] = {}

    def begin(self, record: Node) -> None:
        """Take the record with which the node registers; if that is new, Redis knows."""
        self._begun = _watched(record)

    def report(self, connection: redis.Redis, record: Node) -> None:
        """Report what is different now; what must wait is reported by a later call."""
        now = _watched(record)
        changed = [field for field in WATCHED if now[field] != self._reported.get(field)]
        if not changed:
            return
        # With a mark before it, as nothing is a value, too.
        before = {field: f"={value}" for field, value in (self._reported or self._begun).items()}
        facts = [part for field in changed for part in (field, before.get(field, ""), now[field])]
        time = iso_utc(datetime.now(timezone.utc))
        try:
            status, _, left = add_results(
                connection,
                "events",
                len(changed),
                [keyspace.node_key(self.node)],
                [LEAST_S, version.WIRE_VERSION, time, self.node, TOLD, TOLD_AT, *facts],
                longest_wait_s=LONGEST_WAIT_S,
            )
        except StreamFull as exc:
            logger.debug("events wait: %s", exc)
            return
        if status == b"ok" and not left:
            self._reported = now


def _watched(record: Node) -> dict[str, str]:
    fields = record.to_fields()
    return {field: one_line(fields[field]) for field in WATCHED}
