"""Follows a run: yields its measurements as they arrive, until it has ended."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import redis

from coordinator.results.results import measurements_in
from coordinator.results.stream import Pages, wait_for_more
from coordinator.runs.advance import advance
from coordinator.runs.runs import beginning, read_run
from worker.model.measurement import Measurement
from worker.model.names import RunId
from worker.wire import keyspace, liveness, scripts
from worker.wire.room import StreamFull
from worker.wire.run_record import Run

#: All is here, and the run closes within moments: look more often than results arrive.
CLOSING_S = 0.05
#: How often a follower looks whether the run is overdue, as a heartbeat would.
CARE_S = 5.0


class Update(NamedTuple):
    """A run as it stands, what arrived since the last update, and where the stream was read to."""

    run: Run
    arrived: list[Measurement]
    position: str


def follow_run(connection: redis.Redis, run_id: RunId) -> Iterator[Update]:
    """
    Yield updates until the run has ended and all its measurements have been yielded.

    Should every node be dead, the follower itself carries the run on: a run always ends.

    Raises:
        ConfigError: There is no such run, or Redis has lost it.
    """
    run = read_run(connection, run_id)
    pages, position = Pages(connection), beginning(run)
    care = Care(connection)
    total = 0
    while True:
        was_open = run.is_open
        entries = pages.after(position)
        if not entries and was_open:
            wait_for_more(connection, position)
            entries = pages.after(position)
        if entries:
            position = entries[-1][0].decode()
        arrived = [measurement for _, measurement in measurements_in(entries, run_id)]
        total += len(arrived)
        if not was_open and not arrived and pages.at_end:
            return
        if arrived and total >= run.expected:
            time.sleep(CLOSING_S)
        run = read_run(connection, run_id, plan=run.plan)
        yield Update(run, arrived, position)
        care.look([run_id])


class Care:
    """
    Carries runs on that are overdue, should every node be dead: a run always ends.

    For how long no node was heard is told by our own clock: that of Redis may be set. Who has
    listened for less than nodes may be silent cannot tell a dead mesh from a Redis that was away,
    and is patient.
    """

    def __init__(self, connection: redis.Redis) -> None:
        """Begin to listen."""
        self.connection = connection
        self._newest: object = None
        self._heard_at = time.monotonic()
        self._due_at = self._heard_at + CARE_S

    def look(self, runs: Iterable[RunId]) -> None:
        """Look at the runs, unless that was done just now; ask for it often."""
        if time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + CARE_S
        newest = self.connection.zrange(keyspace.NODES, 0, 0, desc=True, withscores=True)
        if newest != self._newest:
            self._newest, self._heard_at = newest, time.monotonic()
        patient = time.monotonic() - self._heard_at < liveness.ALIVE_S
        now = scripts.redis_seconds(self.connection)
        for run in runs:
            due = self.connection.zscore(keyspace.RUNS_OPEN, run)
            if due is not None and due < now:
                with contextlib.suppress(StreamFull):
                    advance(self.connection, run, patient=patient)
