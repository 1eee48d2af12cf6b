"""
What became of a row that has not ended: its performer gone, its job lost, or it may still come.

Who performs a row is gone when its heartbeat is, or when its sweep has begun and gives no sign of
life; never because it waits its turn behind another run. It is the source of its pairs, but for
tests with two ends: there a pair's target may perform, and then it is the target that is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, cast

import redis

from worker.model.fields import number_or_none
from worker.model.measurement import Outcome
from worker.publish.publisher import LOOK_S
from worker.wire import keyspace, node_record, scripts
from worker.wire.rows import Row, end_lost, not_heard

#: A started sweep gives a sign of life every few seconds. After this long without one it is lost: a
#: Redis that was away for less has its heartbeats back by then, and what outboxes kept.
QUIET_S = 30.0
#: For the way to Redis, beyond the time in which something comes.
MARGIN_S = 2.0
#: A mark may be so much newer than a look at the clock before it.
CLOCK_SLACK_S = 1.0
#: A row whose process dies each time must end, too; one that is handed back a few times goes on.
MAX_ATTEMPTS = 10


@dataclass(frozen=True, kw_only=True)
class RowState:
    """
    What Redis says of one unfinished row; times in seconds.

    Attributes:
        name: The node that performs it.
        silent_s: Since its last heartbeat, or since Redis was back from being away; None when there
            was none.
        restarted: Its process began after the sweep did.
        outbox_bytes: Results that wait on its disk.
        quiet_s: Since the sweep's last sign of life, or since Redis was back; None when it has not
            begun.
        job: RQ's status of the row's job; None when RQ has forgotten it.
        in_queue: The job waits in its queue.
        served: A live RQ worker listens on that queue.
        attempts: How often it was enqueued.
        unserved_s: Since it was first seen that none does; None when it was not.
        refused: Why a node of another wire version will not measure it; empty when it may.
    """

    name: str
    silent_s: float | None
    restarted: bool
    outbox_bytes: int
    quiet_s: float | None
    job: str | None
    in_queue: bool
    served: bool
    attempts: int
    unserved_s: float | None
    refused: str = ""


class Hope(Enum):
    """What to do for a row that may still come."""

    WAIT = auto()
    ENQUEUE = auto()
    MARK_UNSERVED = auto()
    MARK_SERVED = auto()


@dataclass(frozen=True)
class Lost:
    """Why missing pairs will not come."""

    outcome: Outcome
    error: str


@dataclass(frozen=True)
class Gone:
    """Who performs a row is gone, and why: the one end of a pair, or the other."""

    name: str
    why: str

    def of(self, source: str) -> Lost:
        """Give what that is for a pair of this source."""
        return Lost(*end_lost(source, self.name, self.why))


def judge(row: RowState) -> Hope | Lost | Gone:
    """Decide about one unfinished row. Pure."""
    if row.refused:
        return Lost(Outcome.DENIED, row.refused)
    if row.silent_s is None or row.silent_s > node_record.ALIVE_S:
        return Gone(row.name, not_heard(row.silent_s))
    if row.quiet_s is None:
        return _judge_waiting(row)
    if row.restarted:
        return _again(row)
    if row.outbox_bytes:
        return Hope.WAIT
    # A heartbeat since then would have told of results that wait on the disk: one that came when
    # the next sign of life was overdue. While Redis was away there was none.
    told = row.quiet_s > max(node_record.HEARTBEAT_S, row.silent_s + LOOK_S) + MARGIN_S
    if row.job == "failed" and told:
        return Lost(Outcome.CRASHED, f"the sweep of {row.name} ended abnormally; see its log")
    if row.quiet_s > QUIET_S:
        return Gone(row.name, f"gave no sign of life from its sweep for {row.quiet_s:.0f} s")
    return Hope.WAIT


def _judge_waiting(row: RowState) -> Hope | Lost | Gone:
    if not row.served:
        if row.unserved_s is None:
            return Hope.MARK_UNSERVED
        if row.unserved_s > node_record.ALIVE_S:
            return Gone(row.name, "is heard, and its prober does not answer")
    if row.in_queue:
        return Hope.MARK_SERVED if row.served and row.unserved_s is not None else Hope.WAIT
    # Whoever has taken a job begins its row a moment later, or died, which RQ may never hear of.
    if row.job == "started" and (row.unserved_s is None or row.unserved_s <= node_record.ALIVE_S):
        return Hope.MARK_UNSERVED
    # A job that is neither in its queue nor begun was lost with the process that had just taken
    # it, or with Redis' memory. Should it begin after all, its pairs are still published once.
    return _again(row)


def _again(row: RowState) -> Hope | Lost:
    if row.attempts >= MAX_ATTEMPTS:
        error = f"the sweep of {row.name} was lost {row.attempts} times; see its log"
        return Lost(Outcome.CRASHED, error)
    return Hope.ENQUEUE


def read_rows(connection: redis.Redis, rows: Sequence[Row]) -> list[RowState]:
    """Read the state of unfinished rows of one run, in two round trips and a clock."""
    key = keyspace.run_key(rows[0].run)
    now = scripts.redis_seconds(connection)
    pipeline = connection.pipeline(transaction=False)
    pipeline.get(keyspace.BACK)
    for row in rows:
        pipeline.hmget(key, row.fields)
        pipeline.zscore(keyspace.NODES, row.name)
        pipeline.hmget(keyspace.node_key(row.name), ["since", "outbox"])
        pipeline.smembers(keyspace.queue_workers_key(keyspace.node_queue(row.name)))
    back, *first = pipeline.execute()
    marks = [first[4 * i : 4 * i + 4] for i in range(len(rows))]
    for row, ((job, *_), _, _, workers) in zip(rows, marks, strict=True):
        queue = keyspace.queue_key(keyspace.node_queue(row.name))
        job_id = (job or b"-").decode(errors="replace")
        pipeline.hget(keyspace.job_key(job_id), "status")
        pipeline.lpos(queue, job_id)
        pipeline.exists(*(workers or ["-"]))
    second = pipeline.execute()
    return [
        _state(row, now, _number(back), marks[i], second[3 * i : 3 * i + 3])
        for i, row in enumerate(rows)
    ]


def _state(row: Row, now: float, back: float, marks: Sequence[Any], job: Sequence[Any]) -> RowState:
    (_, started, sign, unserved, attempts, refused), seen, (since, outbox), _ = marks
    signs = [_past(_number(mark), now) for mark in (started, sign)]
    status, place, workers = cast("tuple[bytes | None, int | None, int]", job)
    return RowState(
        name=row.name,
        silent_s=None if seen is None else now - max(_past(seen, now), back),
        restarted=bool(started and since and _number(since) > _number(started)),
        outbox_bytes=int(_number(outbox)),
        quiet_s=None if started is None else now - max(*signs, back),
        job=status.decode(errors="replace") if status else None,
        in_queue=place is not None,
        served=workers > 0,
        attempts=int(_number(attempts)),
        unserved_s=None if unserved is None else now - max(_past(_number(unserved), now), back),
        refused=refused.decode(errors="replace") if refused else "",
    )


def _past(mark: float, now: float) -> float:
    """Give a mark; one in the future was made before Redis' clock was set back, who knows when."""
    return mark if mark <= now + CLOCK_SLACK_S else 0.0


def _number(raw: bytes | None) -> float:
    """Read a mark; what is none counts as long ago, so that its row is judged, not waited for."""
    return number_or_none(raw) or 0.0
