"""Follows a run: yields its measurements as they arrive, until it has ended."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import redis

from coordinator.results.results import measurements_in
from coordinator.results.stream import Pages
from coordinator.runs.advance import advance
from coordinator.runs.runs import beginning, known, read_run
from worker.model.measurement import Measurement
from worker.model.names import RunId
from worker.wire import keyspace, liveness, run_record
from worker.wire.room import StreamFull
from worker.wire.round_trip import asking_sure, together
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


def follow_run(connection: redis.Redis, run_id: RunId, run: Run | None = None) -> Iterator[Update]:
    """
    Yield updates until the run has ended and all its measurements have been yielded.

    Should every node be dead, the follower itself carries the run on: a run always ends. `run` is
    the run as it stood, where that is known.

    Raises:
        ConfigError: There is no such run, or Redis has lost it.
    """
    run = run or read_run(connection, run_id)
    pages, position = Pages(connection), beginning(run)
    care = Care(connection)
    total = 0
    while True:
        was_open, waiting = run.is_open, run.is_open and total < run.expected
        # In one round trip: what is there or comes soon, and how the run stands after that.
        entries, (values,) = together(
            connection,
            pages.asking(position, waiting=waiting),
            asking_sure(partial(run_record.queue_read, run=run_id, plan=run.plan)),
        )
        if entries:
            position = entries[-1][0].decode()
        arrived = [measurement for _, measurement in measurements_in(entries, run_id)]
        total += len(arrived)
        if not was_open and not arrived and pages.at_end:
            return
        run = known(run_id, run_record.from_values(run_id, values, run.plan))
        yield Update(run, arrived, position)
        if total >= run.expected:
            if not run.is_open:
                return
            time.sleep(CLOSING_S)
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
        pipeline, listed = self.connection.pipeline(transaction=False), list(runs)
        pipeline.zrange(keyspace.NODES, 0, 0, desc=True, withscores=True)
        pipeline.time()
        for run in listed:
            pipeline.zscore(keyspace.RUNS_OPEN, run)
        newest, (seconds, micros), *all_due = pipeline.execute()
        if newest != self._newest:
            self._newest, self._heard_at = newest, time.monotonic()
        patient = time.monotonic() - self._heard_at < liveness.ALIVE_S
        now = seconds + micros / 1e6
        for run, due in zip(listed, all_due, strict=True):
            if due is not None and due < now:
                with contextlib.suppress(StreamFull):
                    advance(self.connection, run, patient=patient)
