"""
Carries a run on: the next phase, lost sources, the end.

Runs as an RQ job on any node, and in whatever program follows the run; two at once do no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from typing import Any, cast

import redis

from coordinator.runs.row_state import CLOCK_SLACK_S, read_rows
from coordinator.runs.runs import read_run
from coordinator.runs.starting import deadline_s, rows_of
from coordinator.runs.unfinished import Action, Gone, Lost, judge
from worker.model.errors import ConfigError, OtherWire, WireError
from worker.model.measurement import Outcome
from worker.model.names import NodeName, RunId
from worker.model.plan import Plan
from worker.model.text import one_line
from worker.model.version import WIRE_VERSION
from worker.publish.outbox import Letter, publish
from worker.publish.source_clock import REDIS, moved
from worker.wire import keyspace, liveness, run_record, scripts
from worker.wire.connection.way import allowing
from worker.wire.node_record import Clock
from worker.wire.registry import read_nodes, read_parts
from worker.wire.round_trip import asking_sure, together
from worker.wire.rows import OF_RUNS, Row, commands_of, enqueue_rows
from worker.wire.rq_jobs import JOBS_AT_A_TIME
from worker.wire.run_record import Run

logger = logging.getLogger(__name__)

#: Source and target, as indices of the plan.
Pair = tuple[int, int]

#: How soon a phase with rows that still wait or run is looked at again; later by so many round
#: trips to Redis: a look takes a responder some time, and tests ask the same one.
LOOK_AGAIN_S, LOOK_AGAIN_TRIPS = 5.0, 20
#: Rows published by one advance before it says that it is still at work.
RENEW_EVERY = 500
#: Fields removed in one command, which holds every locker.
FIELDS_AT_A_TIME = 100


@dataclass(frozen=True)
class _At:
    """
    Where a run is.

    Attributes:
        phase: Its present phase.
        results: So many of that are in the stream, as the run counts them.
        bitmap: Which; not needed where these are all.
        is_cancelled: It is to end, in whatever phase it is.
    """

    run: RunId
    plan: Plan
    phase: int
    results: int
    bitmap: bytes = b""
    is_cancelled: bool = False


def advance(
    connection: redis.Redis, run_id: RunId, *, patient: bool = False, row: Row | None = None
) -> None:
    """
    Do what is due in a run: publish the rows of lost sources, begin the next phase, close it.

    Safe to call at any time, from anywhere, any number of times.

    Args:
        patient: Where no node was heard for long it was Redis that was away: wait for them.
        row: Of the run, as its node has read it, whose last result completed the phase.

    Raises:
        StreamFull: There is no room for a row that must say what became of a pair.
    """
    if row is not None:
        at = _At(row.run, row.plan, row.phase, row.plan.count(row.probe))
        if _go_on(connection, at):
            return
    try:
        run = read_run(connection, run_id, versions=(WIRE_VERSION,))
    except ConfigError:
        connection.zrem(keyspace.RUNS_OPEN, run_id)
        return
    except (WireError, redis.ResponseError) as exc:
        _leave(connection, run_id, exc)
        return
    if not run.is_open:
        connection.zrem(keyspace.RUNS_OPEN, run_id)
    elif run.cancelled:
        _end_cancelled(connection, run)
    else:
        _carry_on(connection, run, patient)


def _look(
    connection: redis.Redis, run_id: RunId, plan: Plan, phase: int
) -> tuple[Run, bytes | None]:
    """Read a run of a plan, and in the same round trip the bitmap of a phase, if it is in that."""
    key = keyspace.done_key(run_id, plan.probes[phase])
    asking_done = asking_sure(lambda pipeline: pipeline.get(key))
    (run,), (done,) = together(connection, run_record.asking_runs([run_id], plan=plan), asking_done)
    if isinstance(run, WireError):
        raise run
    if run is None:
        return read_run(connection, run_id), None
    return run, (done or b"") if run.phase == phase else None


def _leave(connection: redis.Redis, run_id: RunId, exc: Exception) -> None:
    """Leave a run that is not understood to nodes of its wire version; else nobody has it."""
    version = exc.version if isinstance(exc, OtherWire) else None
    if any(node.alive and node.wire == version for node in read_nodes(connection)):
        logger.warning("run %s is left to others: %s", one_line(run_id), exc)
        connection.zadd(keyspace.RUNS_OPEN, {run_id: 0}, xx=True)  # due, for whoever is next
        return
    # It is given up, and no trigger joins it.
    logger.warning("run %s is given up: %s", one_line(run_id), one_line(str(exc)))
    connection.zrem(keyspace.RUNS_OPEN, run_id)
    with suppress(redis.ResponseError):
        connection.hset(keyspace.run_key(run_id), run_record.STATUS, run_record.IS_CANCELLED)


def cancel(connection: redis.Redis, run_id: RunId) -> None:
    """
    End a run now; pairs that are not measured get `cancelled`, so its matrix is whole.

    Raises:
        ConfigError: There is no such run, or it has ended.
        StreamFull: There is no room for the rows that say so.
    """
    run = read_run(connection, run_id)
    if not run.is_open:
        raise ConfigError(f"run ({run_id}) has ended already ({run.status})")
    # The mark comes first: should this process die now, any heartbeat ends what it began.
    pipeline = connection.pipeline()
    pipeline.hset(keyspace.run_key(run_id), run_record.CANCEL, 1)
    pipeline.zadd(keyspace.RUNS_OPEN, {run_id: 0}, xx=True)
    pipeline.execute()
    advance(connection, run_id)


def _end_cancelled(connection: redis.Redis, run: Run) -> None:
    lost = Lost(Outcome.CANCELLED, "the run was cancelled")
    for phase in range(run.phase, len(run.plan.probes)):
        _publish(connection, run, phase, ((pair, lost) for pair in missing(connection, run, phase)))
    _close(
        connection, _At(run.id, run.plan, run.phase, 0, is_cancelled=True), run_record.IS_CANCELLED
    )


def _carry_on(connection: redis.Redis, run: Run, patient: bool) -> None:
    """Settle what will not come of the present phase; once nothing is missing, go on."""
    done = _done(connection, run, run.phase)
    performers = _performers(run, done)
    if performers and not (patient and _redis_was_away(connection)):
        performers = _settle(connection, run, performers)
        if not performers:
            # What was lost is in by now, or Redis has an older copy.
            run, settled = _look(connection, run.id, run.plan, run.phase)
            if settled is None or run.cancelled or not run.is_open:
                return  # whoever did that goes on
            done = settled
            performers = _performers(run, done)
    if performers:
        _look_in(connection, run, allowing(LOOK_AGAIN_S, LOOK_AGAIN_TRIPS))
    else:
        counted = run.done[run.plan.probes[run.phase]]
        _go_on(connection, _At(run.id, run.plan, run.phase, counted, done))


def _go_on(connection: redis.Redis, at: _At) -> bool:
    """Begin the next phase, or close the run, if it is still there; return whether it was."""
    if at.phase + 1 < len(at.plan.probes):
        return _begin_phase(connection, at, at.phase + 1)
    return _close(connection, at, run_record.IS_DONE)


def _performers(run: Run, done: bytes) -> list[int]:
    """Return the nodes of whose rows of the present phase something is missing."""
    probe = run.plan.probes[run.phase]
    pairs = _missing_of(done, run, run.phase)
    return sorted({run.plan.performer(probe, *pair) for pair in pairs})


def _redis_was_away(connection: redis.Redis) -> bool:
    """
    Return whether no node can have reported yet, so that nobody counts as lost.

    No node was heard for long: it was Redis that was away. A heartbeat in the future: its clock was
    set back, and no node has noticed yet.
    """
    newest = cast(
        "list[tuple[bytes, float]]",
        connection.zrange(keyspace.NODES, 0, 0, desc=True, withscores=True),
    )
    silent_s = scripts.redis_seconds(connection) - (newest[0][1] if newest else 0.0)
    return not -CLOCK_SLACK_S <= silent_s <= liveness.REDIS_AWAY_S


def missing(connection: redis.Redis, run: Run, phase: int) -> Iterator[Pair]:
    """Yield the pairs of a phase that are not in the stream, as indices of the plan."""
    return _missing_of(_done(connection, run, phase), run, phase)


def _done(connection: redis.Redis, run: Run, phase: int) -> bytes:
    done = connection.get(keyspace.done_key(run.id, run.plan.probes[phase]))
    return cast("bytes | None", done) or b""


def _missing_of(done: bytes, run: Run, phase: int) -> Iterator[Pair]:
    probe, bit = run.plan.probes[phase], run.plan.bit
    return (pair for pair in run.plan.pairs(probe) if not run_record.bit_is_set(done, bit(*pair)))


def _settle(connection: redis.Redis, run: Run, performers: Sequence[int]) -> list[int]:
    """Do what the rows of these nodes need; return the nodes whose rows may still come."""
    rows = [
        Row(run=run.id, plan=run.plan, phase=run.phase, performer=performer)
        for performer in performers
    ]
    verdicts = map(judge, read_rows(connection, rows))
    judged = list(zip(rows, verdicts, strict=True))
    enqueue_rows(connection, [row for row, verdict in judged if verdict is Action.ENQUEUE])
    key, now = keyspace.run_key(run.id), repr(scripts.redis_seconds(connection))
    for row, verdict in judged:
        if verdict is Action.MARK_UNSERVED:
            connection.hset(key, row.fields.unserved, now)
        elif verdict is Action.MARK_SERVED:
            connection.hdel(key, row.fields.unserved)
    lost = {row.performer: verdict for row, verdict in judged if isinstance(verdict, (Lost, Gone))}
    if lost:
        _publish(connection, run, run.phase, _lost_pairs(connection, run, lost))
    return [performer for performer in performers if performer not in lost]


def _lost_pairs(
    connection: redis.Redis, run: Run, lost: Mapping[int, Lost | Gone]
) -> Iterator[tuple[Pair, Lost]]:
    """Yield what is missing of the rows of these performers, with why it will not come."""
    probe = run.plan.probes[run.phase]
    for pair in missing(connection, run, run.phase):
        verdict = lost.get(run.plan.performer(probe, *pair))
        if isinstance(verdict, Gone):
            verdict = verdict.of(run.plan.nodes[pair[0]].name)
        if verdict is not None:
            yield pair, verdict


def _publish(
    connection: redis.Redis, run: Run, phase: int, lost_pairs: Iterable[tuple[Pair, Lost]]
) -> None:
    """Put into the stream why pairs have no numbers, each by its source's clock."""
    row = Row(run=run.id, plan=run.plan, phase=phase, performer=0)
    lost_pairs = iter(lost_pairs)
    clocks: dict[NodeName, Clock] = {}
    while part := list(islice(lost_pairs, RENEW_EVERY)):
        now = datetime.fromtimestamp(scripts.redis_seconds(connection), timezone.utc)
        findings = [row.finding(pair, lost.outcome, lost.error, now) for pair, lost in part]
        unknown = {finding.source for finding in findings} - clocks.keys()
        clocks |= read_parts(connection, sorted(unknown), Clock)
        letters = [
            Letter(row.bit_of(finding), moved(finding, REDIS, clocks[finding.source]))
            for finding in findings
        ]
        publish(connection, letters)
        if len(part) == RENEW_EVERY:
            # The mesh's pace makes this long; others need not do the same meanwhile.
            _look_in(connection, run, 2 * liveness.HEARTBEAT_S)


def _look_in(connection: redis.Redis, run: Run, seconds: float) -> None:
    """Have the run looked at again after some time, by whoever sees then that it is due."""
    due = scripts.redis_seconds(connection) + seconds
    connection.zadd(keyspace.RUNS_OPEN, {run.id: due}, xx=True)


def _begin_phase(connection: redis.Redis, at: _At, phase: int) -> bool:
    rows = rows_of(at.run, at.plan, phase)
    first, due_s = commands_of(rows[:JOBS_AT_A_TIME]), deadline_s(at.plan, phase)
    fields = {run_record.PHASE: phase}
    if not _write(connection, at, fields, due_s=due_s, commands=first):
        return False
    enqueue_rows(connection, rows[JOBS_AT_A_TIME:])
    logger.info("run %s began phase %s", at.run, at.plan.probes[phase])
    return True


def _close(connection: redis.Redis, at: _At, status: str) -> bool:
    fields = {run_record.STATUS: status}
    if not _write(connection, at, fields, time_field=run_record.CLOSED):
        return False
    # Only a run's phases need these, and there is one for each pair.
    rtts = [run_record.rtt_field(source) for source in at.plan.sources]
    for start in range(0, len(rtts), FIELDS_AT_A_TIME):
        connection.hdel(keyspace.run_key(at.run), *rtts[start : start + FIELDS_AT_A_TIME])
    same = keyspace.same_plan_key(at.plan.digest)
    if cast("bytes | None", connection.get(same)) == at.run.encode():
        connection.delete(same)
    logger.info("run %s is %s", at.run, status)
    return True


def _write(
    connection: redis.Redis,
    at: _At,
    fields: Mapping[str, str | int],
    *,
    due_s: float | None = None,
    time_field: str = "",
    commands: Sequence[Any] = (),
) -> bool:
    """
    Write how a run goes on, if it is still there; return whether it was.

    One that was cancelled ends, whatever becomes of its rows meanwhile. Else another advance may
    have been first, or Redis came back with an older copy, and results are asked for again: then
    the run is looked at when it is due again.

    Args:
        due_s: Seconds until it is looked at; None is never again.
        time_field: A field that gets the time.
        commands: Carried out with it, as of `commands_of`.
    """
    probe = at.plan.probes[at.phase]
    is_counted = at.results >= at.plan.count(probe)  # else its bits count
    words = [word for field in fields.items() for word in field]
    asked = [
        *(at.run, "" if at.is_cancelled else at.phase),
        *(run_record.count_field(run_record.DONE, probe), at.results),
        *(b"" if is_counted else at.bitmap, "" if due_s is None else due_s, time_field),
        *(len(words), *words, *commands),
    ]
    keys = [keyspace.run_key(at.run), keyspace.done_key(at.run, probe), keyspace.RUNS_OPEN]
    go_on = scripts.script(connection, "commands", "go_on", before=OF_RUNS)
    return bool(go_on(keys, asked))
