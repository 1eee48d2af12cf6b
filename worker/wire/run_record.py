"""
What Redis has of a run: the only file that names a field of its hash `ptzmesh:run:<id>`.

The hash has a few fields of the run, a few counts of each probe, a few marks of each row
(`RowFields`), and of each source its idle round-trip times. Times are Redis' own epoch seconds.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import redis

from worker.model import version
from worker.model.errors import WireError
from worker.model.fields import number_or_none
from worker.model.names import RunId
from worker.model.plan import Plan, unpack_plan
from worker.model.probe import PROBES
from worker.model.text import one_line
from worker.wire import keyspace
from worker.wire.round_trip import Asking, alone, at_once, sure

#: Runs and their bitmaps are kept for a week; how many, `coordinator.runs.runs` says.
RUN_TTL_S = 7 * 24 * 3600

PLAN, STATUS, PHASE, CANCEL = "plan", "status", "phase", "cancel"
CREATED, CLOSED, BY = "created", "closed", "by"
BEGUN, NEWEST = "begun", "newest"
#: What says whether a run is still to be measured.
WANTED = STATUS, CANCEL, PHASE
#: Of each probe: pairs that it has, that are in the stream, and whose outcome there is `ok`.
PAIRS, DONE, OK = "pairs", "done", "ok"

#: What a run's status may be.
IS_RUNNING, IS_DONE, IS_CANCELLED = "running", "done", "cancelled"

#: Redis takes no other; a time beyond the latest leads out of the calendar.
_STREAM_ID, _LATEST_S = re.compile(rb"[0-9]{1,19}-[0-9]{1,19}"), 1e11


def count_field(count: str, probe: str) -> str:
    """Return the field of a probe's `PAIRS`, `DONE` or `OK`."""
    return f"{count}:{probe}"


def published_fields(probe: str) -> tuple[str, ...]:
    """Name the fields that `publish.lua` reads and writes, in its order."""
    return NEWEST, *(count_field(count, probe) for count in (PAIRS, DONE, OK))


def rtt_field(source: int) -> str:
    """Return the field of a source's idle round-trip times: msgpack, by target."""
    return f"rtt:{source}"


class RowFields(NamedTuple):
    """
    The names of a row's fields.

    Attributes:
        job: Its present RQ job.
        started: When it began.
        seen: When it last gave a sign of life.
        unserved: Since when no prober serves its queue.
        attempts: How often it was enqueued.
        refused: Why a node of another wire version will not measure it.
    """

    job: str
    started: str
    seen: str
    unserved: str
    attempts: str
    refused: str


def row_fields(phase: int, performer: int) -> RowFields:
    """Name the fields of the row that a node performs in a phase."""
    return RowFields(*(f"{name}:{phase}:{performer}" for name in RowFields._fields))


@dataclass(frozen=True)
class RowMarks:
    """What `RowFields` hold. An invalid time is 0: so long ago that its row is not waited for."""

    job: str | None
    started: float | None
    seen: float | None
    unserved: float | None
    attempts: int
    refused: str


def row_marks(values: Sequence[bytes | None]) -> RowMarks:
    """Read the values of `RowFields`, which may be anything."""
    job, *times, attempts, refused = values
    started, seen, unserved = (
        None if time is None else number_or_none(time) or 0.0 for time in times
    )
    return RowMarks(
        job=None if job is None else job.decode(errors="replace"),
        started=started,
        seen=seen,
        unserved=unserved,
        attempts=int(number_or_none(attempts) or 0),
        refused=(refused or b"").decode(errors="replace"),
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """
    A run as it stands.

    Attributes:
        id: Sorts by time.
        plan: What was asked.
        status: `running`, `done` or `cancelled`.
        cancelled: Somebody has asked to end it.
        phase: Index of the present probe in the plan.
        created: Epoch seconds, Redis' clock.
        closed: Epoch seconds, None while it runs.
        done: Pairs in the stream, by probe.
        ok: Of those, outcome `ok`, by probe.
        by: Who triggered it.
        begun: Stream id before the first of its results; None of a run of wire version 1.
        newest: Stream id of the newest of them; None when there is none.
    """

    id: RunId
    plan: Plan
    status: str
    cancelled: bool
    phase: int
    created: float
    closed: float | None
    done: dict[str, int]
    ok: dict[str, int]
    by: str
    begun: str | None = None
    newest: str | None = None

    @property
    def is_open(self) -> bool:
        """It has not ended yet."""
        return self.status == IS_RUNNING

    @property
    def expected(self) -> int:
        """Measurements that the run ends with."""
        return sum(map(self.plan.count, self.plan.probes))

    @property
    def published(self) -> int:
        """Measurements that are in the stream."""
        return sum(self.done.values())

    @property
    def failed(self) -> int:
        """Published measurements whose outcome is not `ok`."""
        return self.published - sum(self.ok.values())

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready object."""
        return {
            "run": self.id,
            "status": self.status,
            "probes": list(self.plan.probes),
            "nodes": [node.name for node in self.plan.nodes],
            "created": self.created,
            "closed": self.closed,
            "pairs": self.expected,
            "published": self.published,
            "failed": self.failed,
            "by": self.by,
        }


def to_fields(plan: Plan, *, by: str) -> dict[Any, Any]:
    """
    Return the fields of a run that begins: as `Run` has them, and how many pairs it has.

    `CREATED` and `BEGUN` are what Redis says as it begins.
    """
    return {
        PLAN: plan.packed(),
        STATUS: IS_RUNNING,
        PHASE: 0,
        BY: by,
        **{count_field(PAIRS, probe): plan.count(probe) for probe in plan.probes},
    }


def as_it_begins(run: RunId, plan: Plan, by: str, created: bytes, begun: bytes) -> Run:
    """Return a run that has just been written."""
    fields = to_fields(plan, by=by) | {CREATED: created, BEGUN: begun}
    raw = {
        name: value if isinstance(value, bytes) else str(value).encode()
        for name, value in fields.items()
    }
    return from_fields(run, raw, plan)


def from_fields(run: RunId, raw: Mapping[str, bytes], plan: Plan) -> Run:
    """
    Read a run's fields.

    Raises:
        KeyError, ValueError: One is missing, or invalid.
    """
    phase = int(raw[PHASE])
    if not 0 <= phase < len(plan.probes):
        raise ValueError(f"the plan has no phase {phase}")
    done, ok = (
        {probe: int(raw.get(count_field(count, probe), 0)) for probe in plan.probes}
        for count in (DONE, OK)
    )
    return Run(
        id=run,
        plan=plan,
        status=raw[STATUS].decode(),
        cancelled=CANCEL in raw,
        phase=phase,
        created=_time(raw[CREATED]),
        closed=_time(raw[CLOSED]) if CLOSED in raw else None,
        done=done,
        ok=ok,
        by=one_line(raw.get(BY, b"").decode(errors="replace")),
        begun=_stream_id(raw.get(BEGUN)),
        newest=_stream_id(raw.get(NEWEST)),
    )


def _stream_id(raw: bytes | None) -> str | None:
    if raw is not None and not _STREAM_ID.fullmatch(raw):
        raise ValueError(f"{raw[:40]!r} is no stream id")
    return None if raw is None else raw.decode()


def _time(raw: bytes) -> float:
    value = float(raw)
    if not abs(value) < _LATEST_S:  # nor is `nan`
        raise ValueError(f"{value} is no time")
    return value


def read(
    connection: redis.Redis, run: RunId, *, versions: Container[int] = version.READ_VERSIONS
) -> Run | None:
    """
    Read a run; None when Redis has none of that id.

    Args:
        versions: Wire versions that will do; a node that carries it on must have the same.

    Raises:
        WireError: What Redis has of it makes no sense.
    """
    (record,) = alone(connection, asking_runs([run], versions=versions))
    if isinstance(record, WireError):
        raise record
    return record


def asking_runs(
    runs: Sequence[RunId],
    *,
    plan: Plan | None = None,
    versions: Container[int] = version.READ_VERSIONS,
) -> Asking[list[Run | WireError | None]]:
    """
    Ask for what `read` returns of each, or raises; runs of probes not known here take longer.

    `plan` is that of them all, where it is known already: it never changes, and may be long.
    """
    plans: dict[RunId, Plan | None] = dict.fromkeys(runs, plan)
    records: dict[RunId, Run | WireError | None] = {}
    while plans:
        asked = list(plans.items())

        def look(pipeline: redis.client.Pipeline, asked: Any = asked) -> None:
            for run, own in asked:
                queue_read(pipeline, run, own)

        for (run, own), values in zip(asked, sure((yield look)), strict=True):
            del plans[run]
            try:
                records[run] = from_values(run, values, own, versions=versions)
            except UnknownProbe as exc:
                plans[run] = exc.plan
            except WireError as exc:
                records[run] = exc
    return [records[run] for run in runs]


class UnknownProbe(Exception):  # noqa: N818 - control flow of `asking_runs`
    """The counts of a probe that is not known here are by a name that only the plan has."""

    def __init__(self, plan: Plan) -> None:
        """Take the run's own plan."""
        super().__init__()
        self.plan = plan


def _names(plan: Plan | None) -> list[str]:
    # By name: the hash also has some fields a row, and the round-trip times of each.
    return [
        *(STATUS, CANCEL, PHASE, CREATED, CLOSED, BY, BEGUN, NEWEST),
        *(count_field(count, p) for count in (DONE, OK) for p in (plan.probes if plan else PROBES)),
        *([PLAN] if plan is None else []),
    ]


def queue_read(pipeline: redis.client.Pipeline, run: RunId, plan: Plan | None) -> None:
    """Ask for what `from_values` reads."""
    pipeline.hmget(keyspace.run_key(run), _names(plan))


def from_values(
    run: RunId,
    values: Sequence[bytes | None],
    plan: Plan | None,
    *,
    versions: Container[int] = version.READ_VERSIONS,
) -> Run | None:
    """
    Read the answer to `queue_read` with the same plan; None when Redis has no such run.

    Raises:
        WireError: It makes no sense.
        UnknownProbe: Without a plan, its counts have other names.
    """
    names = _names(plan)
    raw = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    if STATUS not in raw:
        return None
    try:
        own = plan or unpack_plan(raw[PLAN], versions=versions)
        if plan is None and not PROBES.keys() >= set(own.probes):
            raise UnknownProbe(own)
        return from_fields(run, raw, own)
    except (KeyError, ValueError) as exc:
        raise WireError(f"run {run[:80]} is damaged: {exc!r}") from exc


def read_plan(connection: redis.Redis, run: RunId) -> Plan | None:
    """
    Read the plan of a run; None when the run has expired.

    Raises:
        OtherWire: It is of another wire version.
        WireError: It makes no sense.
    """
    return plan_of(*at_once(connection, lambda pipeline: ask_plan(pipeline, run)))


def ask_plan(pipeline: redis.client.Pipeline, run: RunId) -> None:
    """Queue what `plan_of` takes the answer of."""
    pipeline.hget(keyspace.run_key(run), PLAN)


def plan_of(packed: bytes | None) -> Plan | None:
    """Read as `read_plan` the answer to what `ask_plan` queued."""
    return None if packed is None else unpack_plan(packed)


def wanted(status: Any, cancelled: Any, present: Any, *, phase: int | None = None) -> bool:
    """
    Return whether a run is open and nobody has cancelled it, by the values of `WANTED`.

    And whether it is in this phase, if one is given.
    """
    is_present = phase is None or present == b"%d" % phase
    return status == IS_RUNNING.encode() and cancelled is None and is_present


def note(connection: redis.Redis, run: RunId, field: str, value: str | bytes) -> None:
    """Note something of a row in its run; of a run that Redis has just lost, not for ever."""
    pipeline = connection.pipeline(transaction=False)
    pipeline.hset(keyspace.run_key(run), field, value)
    pipeline.expire(keyspace.run_key(run), RUN_TTL_S)
    pipeline.execute()


def bit_is_set(bitmap: bytes, bit: int) -> bool:
    """
    Read one bit as Redis numbers them: the first bit is the highest of the first byte.

    >>> bit_is_set(b'\\x40', 1), bit_is_set(b'\\x40', 2), bit_is_set(b'', 9)
    (True, False, False)
    """
    return bit // 8 < len(bitmap) and bool(bitmap[bit // 8] >> (7 - bit % 8) & 1)
