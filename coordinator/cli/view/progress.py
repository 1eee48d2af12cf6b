"""How far a run has come, how long it takes, and what it waits for."""

from __future__ import annotations

import redis
from rich.progress_bar import ProgressBar
from rich.table import Table

from coordinator.results.matrix import Matrix
from worker.model.cost import phase_seconds
from worker.model.text import in_time, some
from worker.wire.room import StreamFull, why_no_room
from worker.wire.run_record import Run

BAR_WIDTH = 24
#: A run of which nothing was heard for this long is asked whether its results have room.
QUIET_S = 3.0
#: And then no more often than this: each time costs Redis a look at the whole stream.
LOOK_S = 5.0


class Progress:
    """
    A run as it is watched; times in seconds on one monotonic clock, which the caller reads.

    Attributes:
        phase: The phase that it is in.
        phase_began: When that was first seen.
        published: Results that are in.
        heard: When the last of them came.
        full: Why no result has room; None when they have.
    """

    def __init__(self, began: float) -> None:
        """Begin when the run was created."""
        self.phase, self.published = 0, -1
        self.phase_began = self.heard = self._look = began
        self.full: StreamFull | None = None

    def update(self, state: Run, now: float, connection: redis.Redis) -> None:
        """Take the run as it stands; one that is quiet is asked whether its results have room."""
        if state.phase != self.phase:
            self.phase, self.phase_began = state.phase, now
        if state.published != self.published:
            self.published, self.heard, self.full = state.published, now, None
        elif now - self.heard > QUIET_S and now > self._look:
            self._look = now + LOOK_S
            self.full = why_no_room(connection)

    def left_s(self, state: Run, now: float) -> float:
        """Return the time that a run still takes, were every node free and all paths quick."""
        probes = state.plan.probes
        present = phase_seconds(state.plan, probes[self.phase]) - (now - self.phase_began)
        later = sum(phase_seconds(state.plan, probe) for probe in probes[self.phase + 1 :])
        return max(0.0, present) + later

    def outlook(self, state: Run, matrix: Matrix, now: float) -> str:
        """Say in a few words what is still to come."""
        if state.published >= state.expected:
            return "all pairs are in"
        if self.full:
            return f"waits: {self.full}"
        left_s = self.left_s(state, now)
        if left_s < 0.5:
            return waited_for(matrix)
        tests = any(state.plan.kind(p).has_two_ends for p in state.plan.probes[self.phase :])
        return f"{'about' if tests else 'at most'} {in_time(round(left_s))} left"


def progress_line(state: Run, outlook: str) -> Table:
    """Draw how far a run is."""
    # The bar's own green for what is complete would pulse into grey.
    bar = ProgressBar(state.expected, state.published, BAR_WIDTH, finished_style="bar.complete")
    probe = state.plan.probes[min(state.phase, len(state.plan.probes) - 1)]
    line = Table.grid(padding=(0, 1))
    line.add_row(f"run {state.id}", probe, bar, f"{state.published}/{state.expected}", outlook)
    return line


def waited_for(matrix: Matrix) -> str:
    """Name whose rows are not whole: they wait behind another run, or are about to be lost."""
    return f"waiting for {some(matrix.unfinished(), 2)}"
