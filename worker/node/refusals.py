"""
What workers refused to do: one line in the log, one in Redis, and never many a second.

`ptzmesh:refused` is a list of JSON objects `{"time", "node", "job", "reason", "cause"}`, the newest
first. What a late or repeated message of ours can bring about is no refusal at all: see `far`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import time
from datetime import datetime, timezone
from enum import Enum

import redis

from worker.model.errors import ForeignWork
from worker.model.text import iso_utc, one_line
from worker.wire import keyspace, run_record
from worker.wire.connection import server

logger = logging.getLogger(__name__)

#: Length of the list, which all nodes share.
MOST_KEPT = 100
#: Refusals that one RQ worker notes a second; more are only counted.
MOST_A_SECOND = 10
MAX_JOB_CHARS = 80


class Cause(str, Enum):
    """
    What can have brought a refused job about, the gravest first.

    `foreign`: no program of ours of any version asks so. `version`: one of another version may.
    `damaged`: Redis lost or changed what was there: a restart without persistence, eviction, an
    older copy, another program that writes to our keys.
    """

    FOREIGN = "foreign"
    VERSION = "version"
    DAMAGED = "damaged"


def cause_of(exc: Exception) -> Cause:
    """Return the cause of what a job raised; in doubt it is nobody's intention."""
    return Cause.FOREIGN if isinstance(exc, ForeignWork) else Cause.DAMAGED


class Refusals:
    """Notes what one RQ worker and its work-horses refuse."""

    def __init__(self, node: str) -> None:
        """Take the node's name; the count is shared with every process forked from here on."""
        self.node = node
        # The second, the refusals noted in it, and those left out since one was noted. A race
        # between a worker and its work-horse may miscount one, which does no harm.
        self._window = multiprocessing.get_context("fork").RawArray("d", 3)

    def note(self, connection: redis.Redis, job: str, reason: str, cause: Cause) -> None:
        """Log in one line that a job was refused and why; Redis being away is no fault here."""
        left_out = self._admit()
        if left_out is None:
            return
        entry = entry_of(self.node, job, reason, cause, left_out)
        logger.warning("job %s refused: %s", entry["job"], entry["reason"])
        try:
            _keep(connection, json.dumps(entry))
        except redis.RedisError as exc:
            logger.log(server.severity(exc), "the refusal is not in Redis: %s", exc)

    def _admit(self) -> int | None:
        """Return how many were left out since the last one noted; None when this one is, too."""
        window, second = self._window, float(int(time.monotonic()))
        if window[0] != second:
            window[0], window[1] = second, 0
        if window[1] >= MOST_A_SECOND:
            window[2] += 1
            return None
        window[1] += 1
        left_out, window[2] = int(window[2]), 0
        return left_out


def entry_of(node: str, job: str, reason: str, cause: Cause, left_out: int) -> dict[str, str]:
    """Return what is kept of a refusal: printable, and no longer than a person reads."""
    more = f" (and {left_out} more, not noted)" if left_out else ""
    return {
        "time": iso_utc(datetime.now(timezone.utc)),
        "node": node,
        "job": one_line(job)[:MAX_JOB_CHARS],
        "reason": one_line(reason) + more,
        "cause": cause.value,
    }


def _keep(connection: redis.Redis, entry: str) -> None:
    pipeline = connection.pipeline(transaction=False)
    pipeline.lpush(keyspace.REFUSED, entry)
    pipeline.ltrim(keyspace.REFUSED, 0, MOST_KEPT - 1)
    pipeline.expire(keyspace.REFUSED, run_record.RUN_TTL_S)
    try:
        pipeline.execute()
    except redis.ResponseError:
        # Somebody has put something else there, or Redis is full; the next one finds room.
        with contextlib.suppress(redis.ResponseError):
            if connection.type(keyspace.REFUSED) not in (b"list", b"none"):
                connection.delete(keyspace.REFUSED)
        raise
