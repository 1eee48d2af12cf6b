"""Watches a run: a live matrix on a terminal, lines in a pipe, JSON lines for programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live

from coordinator.cli.terminal.output import print_json
from coordinator.cli.terminal.screen import err, out
from coordinator.cli.view.matrix_view import matrix_view
from coordinator.cli.view.progress import Progress, progress_line
from coordinator.cli.view.report import show_report
from coordinator.mesh import MeshRun
from coordinator.results.matrix import Report, make_report
from worker.wire.room import no_room
from worker.wire.run_record import Run
from worker.wire.scripts import redis_seconds

#: Redrawing costs CPU that a node on the same machine may be measuring with.
FRAMES_PER_S = 8
#: A frame of a large mesh takes its time: at most a tenth of ours goes into frames.
FRAME_SHARE = 0.1

Show = Callable[[Run, Report, Progress], None]


def watch(run: MeshRun, *, as_json: bool) -> Run:
    """Follow a run to its end and show what it finds; return its last state."""
    console, state = out(), run.begun or run.state()
    if as_json:
        return _json_lines(run, state)
    # Of a run that began earlier, less is left to wait for.
    age_s = 0.0 if run.begun else redis_seconds(run.connection) - state.created
    progress = Progress(time.monotonic() - max(0.0, age_s))
    report = make_report(state.plan)
    with _frames(console) if console.is_terminal else _lines(state) as show:
        for update in run.updates(state):
            state = update.run
            for measurement in update.arrived:
                report.add(measurement)
            progress.update(state, time.monotonic(), run.connection)
            show(state, report, progress)
    show_report(state, report, console)
    return state


def _json_lines(run: MeshRun, state: Run) -> Run:
    print_json("run", state.to_json())
    for update in run.updates(state):
        state = update.run
        for measurement in update.arrived:
            print_json("measurement", measurement.to_json())
    print_json("run", state.to_json())
    return state


@contextmanager
def _lines(state: Run) -> Iterator[Show]:
    """Progress as lines on stderr."""
    quarter, blocked = -1, ""
    err().print(f"run {state.id}: {state.expected} pairs of {', '.join(state.plan.probes)}")

    def show(state: Run, _report: Report, progress: Progress) -> None:
        nonlocal quarter, blocked
        if 4 * state.published // state.expected > quarter:
            quarter = 4 * state.published // state.expected
            err().print(f"{state.published} of {state.expected} pairs")
        if str(progress.full or "") != blocked:
            blocked = str(progress.full or "")
            waits = f"waits: {no_room(progress.full)}" if progress.full else "goes on"
            err().print(f"run {state.id} {waits}")

    yield show


@contextmanager
def _frames(console: Console) -> Iterator[Show]:
    """The matrix of the phase, as it fills."""
    next_frame = time.monotonic()

    def show(state: Run, report: Report, progress: Progress) -> None:
        nonlocal next_frame
        now = time.monotonic()
        if now < next_frame:
            return
        matrix = report.matrices[state.plan.probes[progress.phase]]
        line = progress_line(state, progress.outlook(state, matrix, now))
        live.update(Group(line, matrix_view(matrix, console, console.height)))
        took_s = time.monotonic() - now
        next_frame = now + max(1 / FRAMES_PER_S, took_s / FRAME_SHARE)

    with Live(console=console, refresh_per_second=FRAMES_PER_S, transient=True) as live:
        yield show
