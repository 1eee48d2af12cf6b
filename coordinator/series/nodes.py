"""
Measures the rounds of a test from nodes of the mesh: one run an interval.

Not one run with many echoes: so results come while the test goes on, a node is free for others in
between, and what was measured stays measured whatever is interrupted.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import redis

from coordinator.mesh import Mesh
from coordinator.results.results import measurements_in
from coordinator.results.stream import Pages, fields_of, last_id
from coordinator.runs.follow import Care
from coordinator.runs.runs import MAX_RUNS
from coordinator.series.here import STOP_CHECK_S, ShouldStop, Ticks
from coordinator.series.options import SeriesOptions
from coordinator.series.series import Round
from worker.model.errors import ConfigError
from worker.model.measurement import Measurement
from worker.model.names import RunId
from worker.model.options import Options
from worker.model.plan import Plan
from worker.wire import keyspace
from worker.wire.connection.away import AWAY, REFUSED

logger = logging.getLogger(__name__)

#: How long one XREAD waits: how soon a Ctrl-C is seen, and how smooth a countdown is.
BLOCK_S = 0.5
#: Each round is a run, and Redis keeps `MAX_RUNS`: half of them stay other people's.
MAX_NODE_ROUNDS = MAX_RUNS // 2
MIN_NODE_INTERVAL_S = 1.0
#: How long a source gets no new round while an earlier one is awaited: it is busy, or dead.
GIVE_UP_S = 60.0
#: How long what is missing after the last round is awaited: a dead source is known after 30 s.
END_WAIT_S = 45.0
#: Between two tries while Redis is away.
AWAY_PAUSE_S = 1.0


def plan_rounds(
    mesh: Mesh,
    sources: Sequence[str],
    target: str,
    options: SeriesOptions,
    family: int | None = None,
) -> Plan:
    """
    Make the plan of every round from nodes.

    Raises:
        ConfigError: An unknown node or one of another family, the target among the sources, or more
            rounds than fit.
    """
    if target in sources:
        raise ConfigError(f"node ({target}) cannot be source and target of the same test")
    if options.interval_s < MIN_NODE_INTERVAL_S:
        raise ConfigError(
            f"interval ({options.interval_s:g}) must be at least {MIN_NODE_INTERVAL_S:g} s "
            "from nodes"
        )
    if options.rounds > MAX_NODE_ROUNDS:
        raise ConfigError(
            f"interval ({options.interval_s:g}) must be at least "
            f"{math.ceil(options.duration_s / MAX_NODE_ROUNDS)} s from nodes: "
            f"each round is a run, and a test may be {MAX_NODE_ROUNDS} of them"
        )
    asked: dict[str, Options] = {"ping": options.ping}
    if options.throughput is not None:
        asked["throughput"] = options.throughput
    return mesh.plan(
        probes=tuple(asked),
        sources=tuple(sources),
        targets=(target,),
        family=family,
        options=asked,
    )


def from_nodes(
    mesh: Mesh, plan: Plan, options: SeriesOptions, *, should_stop: ShouldStop
) -> Iterator[Round]:
    """
    Yield rounds as nodes publish them; each is a run of `plan`, of those sources that are free.

    A Redis that goes away for a while costs the rounds of that time. `should_stop` is asked a few
    times a second; the round under way goes on without us.

    Raises:
        RedisUnavailable: The stream of results is full.
        redis.RedisError: Redis is away at the end, or refuses us.
    """
    rounds = _NodeRounds(mesh, plan, options)
    ticks = Ticks(options)
    while not should_stop() and not rounds.ended(ticks):
        yield from rounds.step(ticks)
        if rounds.trouble is not None:
            _pause(AWAY_PAUSE_S, should_stop)
    yield from rounds.halves()
    if rounds.trouble is not None:
        raise rounds.trouble


class _NodeRounds:
    """The runs of a test that are under way, and what they still owe."""

    def __init__(self, mesh: Mesh, plan: Plan, options: SeriesOptions) -> None:
        self.mesh, self.plan, self.options = mesh, plan, options
        self.connection = mesh.connection
        self.pages, self.position = Pages(self.connection), last_id(self.connection)
        #: Run → round, of all that were started: late results count too.
        self.numbers: dict[RunId, int] = {}
        #: Source → the run that it owes results of, and since when.
        self.owed: dict[str, tuple[RunId, float]] = {}
        #: Pings that wait for the throughput test of the same round.
        self.pings: dict[tuple[RunId, str], Measurement] = {}
        self.trouble: redis.RedisError | None = None
        self.care = Care(self.connection)

    def ended(self, ticks: Ticks) -> bool:
        """No round is left, and nothing is owed that is worth waiting for."""
        return ticks.over and (not self.owed or ticks.left_s < -END_WAIT_S)

    def step(self, ticks: Ticks) -> list[Round]:
        """Start the round that is due; return what has arrived, or wait a little for it."""
        try:
            if not ticks.over and ticks.left_s <= 0 and (number := ticks.take()) is not None:
                self._start(number)
            rounds = self._read()
            if not rounds:
                self._wait(ticks)
            self.care.look({run for run, _ in self.owed.values()})
        except AWAY as exc:
            if isinstance(exc, REFUSED):
                raise
            if self.trouble is None:
                logger.warning("Redis is away; rounds are left out until it is back")
            self.trouble = exc
            return []
        self.trouble = None
        return rounds

    def _start(self, number: int) -> None:
        now, names = time.monotonic(), self.plan.nodes
        late = {source for source, (_, since) in self.owed.items() if now - since < GIVE_UP_S}
        free = tuple(index for index in self.plan.sources if names[index].name not in late)
        if free:
            # Not joined: a run that began earlier would be of another time.
            run = self.mesh.start(replace(self.plan, sources=free), join=False).id
            self.numbers[run] = number
            self.owed |= {names[index].name: (run, now) for index in free}

    def _read(self) -> list[Round]:
        entries = self.pages.after(self.position)
        if entries:
            self.position = entries[-1][0].decode()
        runs = {run.encode() for run in self.numbers}
        mine = [entry for entry in entries if fields_of(entry).get(b"run") in runs]
        rounds = [self._take(measured) for _, measured in measurements_in(mine)]
        return [each for each in rounds if each is not None]

    def _take(self, measured: Measurement) -> Round | None:
        """Return the round that a measurement completes; None while its other half is missing."""
        key, number = (measured.run, measured.source), self.numbers[measured.run]
        *_, last = self.plan.probes
        if measured.probe != last:
            self.pings[key] = measured
            return None
        if self.owed.get(measured.source, ("", 0.0))[0] == measured.run:
            del self.owed[measured.source]
        if self.options.throughput is None:
            return Round(number=number, ping=measured)
        ping = self.pings.pop(key, None)
        return None if ping is None else Round(number=number, ping=ping, throughput=measured)

    def halves(self) -> list[Round]:
        """Return the rounds whose throughput test has not ended."""
        waiting, self.pings = self.pings, {}
        return [Round(number=self.numbers[run], ping=m) for (run, _), m in waiting.items()]

    def _wait(self, ticks: Ticks) -> None:
        left_s = BLOCK_S if ticks.over else min(BLOCK_S, ticks.left_s)
        if left_s > 0:
            block_ms = max(1, int(left_s * 1000))  # 0 would wait for ever
            self.connection.xread({keyspace.RESULTS: self.position}, count=1, block=block_ms)


def _pause(seconds: float, should_stop: ShouldStop) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not should_stop():
        time.sleep(STOP_CHECK_S)
