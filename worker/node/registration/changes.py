"""
Tells what has changed at a node as events, each once, whatever is killed when.

What was told is kept in the node's record in Redis, where one script compares, adds and notes; so a
retry tells nothing twice, and a restart tells what changed meanwhile.
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone

import redis

from worker.model import version
from worker.model.text import iso_utc, one_line
from worker.wire import keyspace
from worker.wire.node_record import TOLD, TOLD_AT, WATCHED, Node
from worker.wire.room import StreamFull, add_results

logger = logging.getLogger(__name__)

#: What flaps is told once a minute, as it is then.
LEAST_S = 60
#: A heartbeat waits no longer for the mesh's pace.
LONGEST_WAIT_S = 1.0


class Changes:
    """The events of one node."""

    def __init__(self, node: str) -> None:
        """Tell what changes at this node."""
        self.node = node
        self._told: dict[str, str] = {}
        self._begun: dict[str, str] = {}

    def begin(self, record: Node) -> None:
        """Take what the node says of itself when it is registered; if that is new, Redis knows."""
        self._begun = _watched(record)

    def tell(self, connection: redis.Redis, record: Node) -> None:
        """Tell what is different now; what must wait is told by a later call."""
        now = _watched(record)
        changed = [what for what in WATCHED if now[what] != self._told.get(what)]
        if not changed:
            return
        facts = [part for what in changed for part in (what, self._remembered(what), now[what])]
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
            self._told = now

    def _remembered(self, what: str) -> str:
        # With a mark before it, as nothing is a value, too.
        before = self._told or self._begun
        return f"={before[what]}" if what in before else ""


def _watched(record: Node) -> dict[str, str]:
    said = record.to_fields()
    return {what: one_line(said[what]) for what in WATCHED}
