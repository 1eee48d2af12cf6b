"""What Redis says of rows that have not ended, and of the nodes that perform them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import redis

from worker.model.fields import number_or_none
from worker.wire import keyspace, run_record, scripts
from worker.wire.node_record import Progress
from worker.wire.registry import read_parts
from worker.wire.round_trip import ask_each
from worker.wire.rows import Row
from worker.wire.run_record import RowMarks

#: A time that is noted may be so much newer than a look at the clock before it.
CLOCK_SLACK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class RowState:
    """
    What is known of one row; times in seconds.

    Attributes:
        name: The node that performs it.
        silent_s: Since its last heartbeat, or since Redis was back from being away; infinite when
            there was none.
        outbox_bytes: Results that wait on its disk.
        begun: Its sweep has begun.
        restarted: The process that it began in is not the present one.
        quiet_s: Since the sweep's last sign of life, or since Redis was back.
        job: RQ's status of the row's job; None when RQ has forgotten it.
        in_queue: The job waits in its queue.
        served: A live RQ worker listens on that queue.
        attempts: How often it was enqueued.
        unserved_s: Since it was first seen that none does; None when it was not.
        refused: Why a node of another wire version will not measure it; empty when it may.
    """

    name: str
    silent_s: float
    outbox_bytes: int
    begun: bool
    restarted: bool
    quiet_s: float
    job: str | None
    in_queue: bool
    served: bool
    attempts: int
    unserved_s: float | None
    refused: str = ""


class _Look(NamedTuple):
    """What Redis has of a row and of who performs it; the answers to `_look_at_row`."""

    noted: list[bytes | None]
    heard_at: float | None
    workers: set[bytes]

    @property
    def marks(self) -> RowMarks:
        """What is noted of the row."""
        return run_record.row_marks(self.noted)


def _look_at_row(pipeline: redis.client.Pipeline, row: Row) -> None:
    pipeline.hmget(keyspace.run_key(row.run), row.fields)
    pipeline.zscore(keyspace.NODES, row.name)
    pipeline.smembers(keyspace.queue_workers_key(keyspace.node_queue(row.name)))


class _Job(NamedTuple):
    """What RQ has of a row's job; the answers to `_look_at_job`."""

    status: bytes | None
    position: int | None
    live_workers: int


def _look_at_job(pipeline: redis.client.Pipeline, seen: tuple[Row, _Look]) -> None:
    row, look = seen
    job = look.marks.job or "-"
    pipeline.hget(keyspace.job_key(job), "status")
    pipeline.lpos(keyspace.queue_key(keyspace.node_queue(row.name)), job)
    pipeline.exists(*(look.workers or ["-"]))


def read_rows(connection: redis.Redis, rows: Sequence[Row]) -> list[RowState]:
    """Read the state of unfinished rows, in a few round trips, however many they are."""
    now = scripts.redis_seconds(connection)
    looks = ask_each(connection, rows, _look_at_row, _Look)
    # After the heartbeats: results that one reported to wait are seen.
    nodes = read_parts(connection, [row.name for row in rows], Progress)
    jobs = ask_each(connection, zip(rows, looks, strict=True), _look_at_job, _Job)
    # After the heartbeats: of one that is from before Redis was away it is known by now.
    back = number_or_none(connection.get(keyspace.BACK)) or 0.0
    return [
        _state(row, look, nodes[row.name], job, now, back)
        for row, look, job in zip(rows, looks, jobs, strict=True)
    ]


def _state(row: Row, look: _Look, node: Progress, job: _Job, now: float, back: float) -> RowState:
    def ago_s(*times: float | None) -> float:
        return now - max(back, *(_past(time or 0.0, now) for time in times))

    marks = look.marks
    return RowState(
        name=row.name,
        silent_s=math.inf if look.heard_at is None else ago_s(look.heard_at),
        outbox_bytes=node.outbox_bytes,
        begun=marks.started is not None,
        restarted=marks.started is not None and node.since > marks.started,
        quiet_s=ago_s(marks.started, marks.seen),
        job=job.status.decode(errors="replace") if job.status else None,
        in_queue=job.position is not None,
        served=job.live_workers > 0,
        attempts=marks.attempts,
        unserved_s=None if marks.unserved is None else ago_s(marks.unserved),
        refused=marks.refused,
    )


def _past(time: float, now: float) -> float:
    """Return a time; one in the future was noted before Redis' clock was set back: long ago."""
    return time if time <= now + CLOCK_SLACK_S else 0.0
