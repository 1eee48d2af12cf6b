"""
What became of a row that has not ended: its performer gone, its job lost, or it may still come.

A performer is gone when its heartbeat is, or when its sweep has begun and gives no sign of life;
never because it waits its turn behind another run. It is the source of its pairs, but that a pair's
target may perform a test with two ends, and then it is the target that is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from coordinator.runs.row_state import RowState
from worker.model.measurement import Outcome
from worker.wire import liveness
from worker.wire.rows import end_lost, not_heard

#: A started sweep gives a sign of life every few seconds. After this long without one it is lost: a
#: Redis that was away for less has its heartbeats back by then, and what outboxes kept.
QUIET_S = 30.0
#: For the way to Redis, beyond the time in which something comes.
MARGIN_S = 2.0
#: A row whose process dies each time must end, too; one that is handed back a few times goes on.
MAX_ATTEMPTS = 10


class Action(Enum):
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
        """Say what that is for a pair of this source."""
        return Lost(*end_lost(source, self.name, self.why))


Verdict = Action | Lost | Gone


def judge(row: RowState) -> Verdict:
    """Decide about one unfinished row: by the first rule that says something of it. Pure."""
    verdicts = (rule(row) for rule in (*ALWAYS, *(IF_BEGUN if row.begun else IF_NOT_BEGUN)))
    return next((verdict for verdict in verdicts if verdict is not None), Action.WAIT)


def _refused(row: RowState) -> Verdict | None:
    """Its node is of another wire version, and said so: it will never measure this."""
    return Lost(Outcome.DENIED, row.refused) if row.refused else None


def _silent(row: RowState) -> Verdict | None:
    """Its node is not heard: several of its heartbeats are missing."""
    return Gone(row.name, not_heard(row.silent_s)) if row.silent_s > liveness.ALIVE_S else None


def _unserved(row: RowState) -> Verdict | None:
    """A prober that is gone is started again; it has as long as a node may be silent."""
    if row.served:
        return None
    if row.unserved_s is None:
        return Action.MARK_UNSERVED
    if row.unserved_s > liveness.ALIVE_S:
        return Gone(row.name, "is heard, and its prober does not answer")
    return None


def _queued(row: RowState) -> Verdict | None:
    """Who waits its turn behind other runs is waited for, however long that takes."""
    if not row.in_queue:
        return None
    return Action.MARK_SERVED if row.served and row.unserved_s is not None else Action.WAIT


def _just_taken(row: RowState) -> Verdict | None:
    """Who has taken a job begins its row a moment later, or died, which RQ may never hear of."""
    if row.job != "started":
        return None
    if row.unserved_s is None:
        return Action.MARK_UNSERVED
    return Action.WAIT if row.unserved_s <= liveness.ALIVE_S else None


def _interrupted(row: RowState) -> Verdict | None:
    """Its process died, and the present one has begun since: that knows nothing of the row."""
    return _vanished(row) if row.restarted else None


def _kept_on_disk(row: RowState) -> Verdict | None:
    """Results that wait on the node's disk may be those that are missing."""
    return Action.WAIT if row.outbox_bytes else None


def _crashed(row: RowState) -> Verdict | None:
    """
    RQ says that the sweep failed, and its results cannot be on their way.

    A heartbeat since then would have told of results that wait on the disk: one that came when the
    next sign of life was overdue. While Redis was away there was none.
    """
    heard_since = row.quiet_s > max(liveness.HEARTBEAT_S, row.silent_s + liveness.SIGN_S) + MARGIN_S
    if row.job != "failed" or not heard_since:
        return None
    return Lost(Outcome.CRASHED, f"the sweep of {row.name} ended abnormally; see its log")


def _quiet(row: RowState) -> Verdict | None:
    """A sweep that lives gives signs of life."""
    why = f"gave no sign of life from its sweep for {row.quiet_s:.0f} s"
    return Gone(row.name, why) if row.quiet_s > QUIET_S else None


def _vanished(row: RowState) -> Verdict:
    """
    Its job was lost with the process that had taken it, or with Redis' memory: it is enqueued.

    Should the lost one begin after all, its pairs are still published once.
    """
    if row.attempts < MAX_ATTEMPTS:
        return Action.ENQUEUE
    error = f"the sweep of {row.name} was lost {row.attempts} times; see its log"
    return Lost(Outcome.CRASHED, error)


#: The rules in their order; of whom none says anything is waited for.
ALWAYS = (_refused, _silent)
IF_NOT_BEGUN = (_unserved, _queued, _just_taken, _vanished)
IF_BEGUN = (_interrupted, _kept_on_disk, _crashed, _quiet)
