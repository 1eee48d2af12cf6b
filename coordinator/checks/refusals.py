"""
What workers refused to execute, sorted by what can have brought it about.

A stranger is named only where no program of ours, however late, asks so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import redis

from coordinator.checks.check import Area, Check, judged
from worker.node.refusals import MOST_KEPT, Cause
from worker.wire import keyspace

NAME = "refused jobs"
MENDS: Mapping[Cause, str] = {
    Cause.FOREIGN: "no ptzmesh asks so: see who else writes to this Redis (redis-cli CLIENT LIST); "
    "if it is nobody of yours, change its password",
    Cause.VERSION: "another version of ptzmesh asks so: install one version on all nodes "
    "(docs/upgrade.md); where all have one, see who else writes to this Redis",
    Cause.DAMAGED: "Redis lost or changed what was there (a restart that did not save, an older "
    "copy, eviction, another program on our keys); it harms no more, and is forgotten in a week",
}
#: What workers of before noted of a test that nobody wanted any more: a link or Redis was away.
LATE = "a test is asked for without holding the lease of "


def refused(connection: redis.Redis) -> Check:
    """Look at the jobs that workers refused to run; the newest of the gravest cause is named."""
    packed = cast("list[bytes]", connection.lrange(keyspace.REFUSED, 0, MOST_KEPT - 1))
    entries = [
        entry for entry in map(_entry, packed) if not _text(entry, "reason").startswith(LATE)
    ]
    if not entries:
        return judged(Area.MESH, NAME, "none", {"refused": 0})
    causes = [_cause(entry) for entry in entries]
    counts = {cause.value: causes.count(cause) for cause in Cause}
    worst = next(cause for cause in Cause if cause in causes)
    last = entries[causes.index(worst)]
    shown = ", ".join(filter(None, (_text(last, key) for key in ("time", "node", "reason"))))
    count = counts[worst.value]
    of_these = "" if count == len(entries) else f", {count} of them {worst.value}"
    message = f"{len(entries)}{of_these}, the last: {shown}"[:300]
    values = {"refused": len(entries), "causes": counts, "last": last}
    return judged(Area.MESH, NAME, message, values, warn=True, fix=MENDS[worst])


def _cause(entry: Mapping[str, Any]) -> Cause:
    """Return an entry's cause; of a node that notes none, it is one of another version."""
    try:
        return Cause(entry.get("cause"))
    except ValueError:
        return Cause.VERSION


def _text(entry: Mapping[str, Any], key: str) -> str:
    return str(entry.get(key) or "")


def _entry(packed: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(packed)
    except ValueError:
        return {}
    return raw if isinstance(raw, dict) else {}
