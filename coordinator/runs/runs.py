"""
Reads runs as they stand, and what they have measured.

All state of a run is in Redis; times are Redis' own clock. What starts a run is in `starting`, what
carries it on in `advance`: who only looks needs neither.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import cast

import redis

from coordinator.results.results import read
from worker.model import version
from worker.model.errors import ConfigError
from worker.model.measurement import Measurement
from worker.model.names import RunId
from worker.wire import keyspace, run_record
from worker.wire.run_record import Run

#: More are not kept: see `retention`.
MAX_RUNS = 1000
#: Looked at for the newest: another program may have left what is none.
FEW = 8
_RUN_ID = re.compile(rb"[0-9A-Za-z._-]{1,80}")


def read_run(
    connection: redis.Redis, run: RunId, *, versions: Container[int] = version.READ_VERSIONS
) -> Run:
    """
    Read a run; `versions` are as in `run_record.read`.

    Raises:
        ConfigError: There is none of that id (or no longer).
        WireError: What Redis has of it makes no sense.
    """
    return known(run, run_record.read(connection, run, versions=versions))


def known(run: RunId, record: Run | None) -> Run:
    """Let a run pass that there is, or raise ConfigError."""
    if record is None:
        raise ConfigError(
            f"run ({run[:80]!r}) is not known: it is over a week old, newer ones needed its room, "
            "or Redis lost its data; see: ptzmesh runs"
        )
    return record


def resolve_run(connection: redis.Redis, run: str) -> RunId:
    """
    Return the full id for `last`, an id, or an unambiguous beginning or end of one.

    Raises:
        ConfigError: None matches, or several do.
    """
    if not run:
        raise ConfigError("run (''): its id is empty; say last, or an id: ptzmesh runs")
    if run == "last" and (newest := recent(connection, FEW)):
        return newest[0]
    if _RUN_ID.fullmatch(run.encode()) and connection.zscore(keyspace.RUNS, run) is not None:
        return RunId(run)
    ids = recent(connection, MAX_RUNS)
    if not ids:
        raise ConfigError(f"run ({run[:80]!r}): there is none yet; start one with: ptzmesh run")
    matches = [one for one in ids if one.startswith(run) or one.endswith(run)]
    if len(matches) == 1:
        return matches[0]
    why = "is ambiguous" if matches else "is not known"
    raise ConfigError(f"run ({run[:80]!r}) {why}; see: ptzmesh runs")


def recent(connection: redis.Redis, count: int) -> list[RunId]:
    """Return run ids, newest first."""
    ids = cast("list[bytes]", connection.zrange(keyspace.RUNS, 0, count - 1, desc=True))
    return run_ids(ids)


def run_ids(members: Iterable[bytes]) -> list[RunId]:
    """Keep those that may be ids of runs; others are printed nowhere, and in no command to copy."""
    return [RunId(member.decode()) for member in members if _RUN_ID.fullmatch(member)]


#: A clock that steps back by less than this hides no result of a run.
CLOCK_MARGIN_S = 60


def of_run(
    connection: redis.Redis, run: RunId, record: Run | None = None
) -> Iterator[tuple[str, Measurement]]:
    """
    Yield one run's results, reading only the part of the stream that was written during the run.

    By stream ids, as Redis' clock may be set: its times may be before or after those of the stream.
    `record` is the run as it stands, where that was read just now.

    Raises:
        ConfigError: There is no such run.
    """
    record = record or read_run(connection, run)
    until = "+"
    if record.closed is not None:
        until = record.newest or str(int((record.closed + CLOCK_MARGIN_S) * 1000))
    return read(connection, run=run, after=beginning(record), until=until)


def beginning(run: Run) -> str:
    """Return a stream id before all of a run's results; of an older run, by Redis' milliseconds."""
    return run.begun or f"{max(0, int((run.created - CLOCK_MARGIN_S) * 1000))}-0"


def repeat_command(run_id: str, path: Path) -> str:
    """
    Return what goes on with a file that was left before its run had ended.

    >>> repeat_command("20261124T101500123-9f3a", Path("my file.csv"))
    "ptzmesh results --run 20261124T101500123-9f3a --csv 'my file.csv'"
    """
    return f"ptzmesh results --run {run_id} --csv {shlex.quote(str(path))}"
