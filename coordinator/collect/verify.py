"""
Proves that a CSV and a run's plan agree, pair by pair: each has exactly one row.

Pure but for its two reads: the run's record from Redis, and the file, line by line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import redis

from coordinator.collect.csvfile import rows_of
from coordinator.runs.runs import read_run
from worker.model.names import RunId
from worker.model.plan import Plan

#: A byte has a pair's rows, and one more for a pair of the plan; more than this are as wrong.
MAX_COUNT = 255


class Pair(NamedTuple):
    """One ordered pair of a probe."""

    probe: str
    source: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """
    What a file has of a run.

    Attributes:
        status: `running`, `done` or `cancelled`; rows of a running one may still come.
        rows: Rows of the run in the file.
        missing: Pairs of the plan without a row.
        doubled: Pairs of the plan with more than one row.
        unexpected: Pairs in the file that the plan does not have.
    """

    run: RunId
    status: str
    expected: int
    rows: int
    missing: tuple[Pair, ...]
    doubled: tuple[Pair, ...]
    unexpected: tuple[Pair, ...]

    @property
    def agrees(self) -> bool:
        """Every pair has exactly one row, and there is no other."""
        return not (self.missing or self.doubled or self.unexpected)

    @property
    def fix(self) -> str:
        """What helps when they do not agree: of a row too many, no collecting again."""
        if self.doubled or self.unexpected:
            return f"rows were edited or copied: ptzmesh results --run {self.run} --csv ANOTHER"
        if self.status == "running":
            return f"it is open: ptzmesh show --follow {self.run}, then collect and verify again"
        if not self.rows:
            return "no row of it is there: name the file that it was collected into, or collect it"
        return (
            "collect again; where run --csv began the file: "
            f"ptzmesh results --run {self.run} --csv FILE; what still waits on a node's disk, "
            "ptzmesh doctor tells, and what cannot be read is in FILE.bad"
        )


def verify(connection: redis.Redis, run: RunId, csv_path: Path) -> Verification:
    """
    Compare a run's plan with the file.

    Raises:
        ConfigError: There is no such run, or the file cannot be read or is not ours.
    """
    record = read_run(connection, run)
    tally = _Tally(record.plan)
    for row in rows_of(csv_path, run):
        tally.add(Pair(row.probe, row.source, row.target))
    return Verification(
        run=run,
        status=record.status,
        expected=record.expected,
        rows=tally.rows,
        missing=tuple(tally.with_rows(0, 0)),
        doubled=tuple(tally.with_rows(2, MAX_COUNT)),
        unexpected=tuple(sorted(tally.unexpected)),
    )


class _Tally:
    """Counts rows in one byte a pair, as a mesh of 1,000 nodes has 999,000 pairs a probe."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rows = 0
        self.unexpected: set[Pair] = set()
        self._index = plan.index_of
        self._counts = {probe: bytearray(len(plan.nodes) ** 2) for probe in plan.probes}
        for probe, counts in self._counts.items():
            for pair in plan.pairs(probe):
                counts[plan.bit(*pair)] = 1

    def add(self, pair: Pair) -> None:
        self.rows += 1
        counts, source = self._counts.get(pair.probe), self._index.get(pair.source)
        target = self._index.get(pair.target)
        if counts and (own := self.plan.kind(pair.probe).target):
            target = source if pair.target == own else None
        bit = None if source is None or target is None else self.plan.bit(source, target)
        if not counts or bit is None or not counts[bit]:
            self.unexpected.add(pair)
        else:
            counts[bit] = min(MAX_COUNT, counts[bit] + 1)

    def with_rows(self, least: int, most: int) -> Iterator[Pair]:
        """Yield the pairs of the plan that have between `least` and `most` rows."""
        nodes = self.plan.nodes
        for probe, counts in self._counts.items():
            for source, target in self.plan.pairs(probe):
                if least <= counts[self.plan.bit(source, target)] - 1 <= most:
                    name = self.plan.kind(probe).target or nodes[target].name
                    yield Pair(probe, nodes[source].name, name)
