"""Follows a run: yields its measurements as they arrive, until it has ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import redis

from coordinator.results.results import OnBad, log_bad, measurements_in, read
from coordinator.results.stream import Pages, wait_for_more
from coordinator.runs.advance import advance
from coordinator.runs.runs import read_run
from worker.model.measurement import Measurement
from worker.wire import keyspace, node_record, scripts
from worker.wire.room import StreamFull
from worker.wire.run_record import Run

#: All is here, and the run closes within moments: look more often than results arrive.
CLOSING_S = 0.05
#: How often a follower looks whether the run is overdue, as a heartbeat would.
CARE_S = 5.0


@dataclass(frozen=True)
class Update:
    """
    The run as it stands, with what arrived since the last update.

    Attributes:
        run: As it stands.
        arrived: Its measurements since the last update.
        position: Stream id up to which the stream was read.
    """

    run: Run
    arrived: list[Measurement]
    position: str


def follow_run(connection: redis.Redis, run_id: str) -> Iterator[Update]:
    """
    Yield updates until the run has ended and all its measurements have been yielded.

    Should every node be dead, the follower itself carries the run on: a run always ends.

    Raises:
        ConfigError: There is no such run, or Redis has lost it.
    """
    run = read_run(connection, run_id)
    tail = Tail(connection, run)
    silence = Silence()
    care_at = time.monotonic() + CARE_S
    total = 0
    while True:
        was_open = run.is_open
        arrived = tail.read(wait=was_open)
        total += len(arrived)
        if not was_open and not arrived and tail.pages.at_end:
            return
        if arrived and total >= run.expected:
            time.sleep(CLOSING_S)
        run = read_run(connection, run_id, plan=run.plan)
        yield Update(run, arrived, tail.after)
        if time.monotonic() >= care_at:
            care_at = time.monotonic() + CARE_S
            carry_on_if_overdue(connection, run_id, silence.lasts_s(connection))


class Tail:
    """Reads one run's measurements from the stream, as they come."""

    def __init__(self, connection: redis.Redis, run: Run) -> None:
        """Begin just before the run was created."""
        self.connection, self.run = connection, run.id
        self.pages = Pages(connection)
        self.after = beginning(run)

    def read(self, *, wait: bool) -> list[Measurement]:
        """Return the next page of what has arrived; wait up to `BLOCK_S` when there is nothing."""
        entries = self.pages.after(self.after)
        if not entries and wait:
            wait_for_more(self.connection, self.after)
            entries = self.pages.after(self.after)
        if entries:
            self.after = entries[-1][0].decode()
        return [m for _, m in measurements_in(entries, self.run, log_bad)]


class Silence:
    """For how long no node has been heard, by our own clock: that of Redis may be set."""

    def __init__(self) -> None:
        """Begin to listen."""
        self._newest: object = None
        self._since = time.monotonic()

    def lasts_s(self, connection: redis.Redis) -> float:
        """Return the seconds since a look found a new heartbeat; look often."""
        newest = connection.zrange(keyspace.NODES, 0, 0, desc=True, withscores=True)
        if newest != self._newest:
            self._newest, self._since = newest, time.monotonic()
        return time.monotonic() - self._since


def carry_on_if_overdue(connection: redis.Redis, run_id: str, silent_s: float) -> None:
    """
    Carry the run on if it is overdue and no node has done so.

    Who has listened for less than nodes may be silent cannot tell a dead mesh from a Redis that
    was away, or whose clock was set, and waits.
    """
    due = connection.zscore(keyspace.RUNS_OPEN, run_id)
    if due is not None and due < scripts.redis_seconds(connection):
        try:
            advance(connection, run_id, patient=silent_s < node_record.ALIVE_S)
        except StreamFull:
            return


#: A clock that steps back by less than this hides no result of a run.
CLOCK_MARGIN_S = 60


def of_run(
    connection: redis.Redis, run: str, *, on_bad: OnBad = log_bad
) -> Iterator[tuple[str, Measurement]]:
    """
    Yield one run's results, reading only the part of the stream that was written during the run.

    By stream ids, as Redis' clock may be set: its times may be before or after those of the stream.

    Raises:
        ConfigError: There is no such run.
    """
    record = read_run(connection, run)
    until = "+"
    if record.closed is not None:
        until = record.newest or str(int((record.closed + CLOCK_MARGIN_S) * 1000))
    return read(connection, run=run, after=beginning(record), until=until, on_bad=on_bad)


def beginning(run: Run) -> str:
    """Return a stream id before all of a run's results; of an older run, by Redis' milliseconds."""
    return run.begun or f"{max(0, int((run.created - CLOCK_MARGIN_S) * 1000))}-0"
