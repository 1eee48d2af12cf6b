"""Watches a run: a live matrix on a terminal, lines in a pipe, JSON lines for programs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from coordinator.cli.terminal.output import print_json
from coordinator.cli.terminal.screen import err, out, recording
from coordinator.cli.view.matrix_view import matrix_view, matrix_width
from coordinator.cli.view.progress import Progress, progress_line
from coordinator.cli.view.reasons import reasons
from coordinator.mesh import MeshRun
from coordinator.results.matrix import Report, make_report
from coordinator.series.files import write_whole
from worker.model.errors import ConfigError
from worker.model.text import in_bytes
from worker.wire.room import no_room
from worker.wire.run_record import Run
from worker.wire.scripts import redis_seconds

SVG_WIDTH = 90
#: Redrawing costs CPU that a node on the same machine may be measuring with.
FRAMES_PER_S = 8
#: A frame of a large mesh takes its time: at most a tenth of ours goes into frames.
FRAME_SHARE = 0.1

Show = Callable[[Run, Report, Progress], None]


def watch(run: MeshRun, *, as_json: bool) -> Run:
    """Follow a run to its end and show what it finds; return its last state."""
    console, state = out(), run.state()
    if as_json:
        return _json_lines(run, state)
    # Of a run that began earlier, less is left to wait for.
    age_s = redis_seconds(run.connection) - state.created
    progress = Progress(time.monotonic() - max(0.0, age_s))
    report = make_report(state.plan)
    with _frames(console) if console.is_terminal else _lines(state) as show:
        for update in run.updates():
            state = update.run
            for measurement in update.arrived:
                report.add(measurement)
            progress.update(state, time.monotonic(), run.connection)
            show(state, report, progress)
    show_report(state, report, console)
    return state


def _json_lines(run: MeshRun, state: Run) -> Run:
    print_json("run", run_to_json(state))
    for update in run.updates():
        state = update.run
        for measurement in update.arrived:
            print_json("measurement", measurement.to_json())
    print_json("run", run_to_json(state))
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


def show_report(state: Run, report: Report, console: Console) -> None:
    """Print a run's heading, one matrix a figure, and why pairs have no number."""
    ended = "is running" if state.is_open else f"is {state.status}"
    took = f" after {state.closed - state.created:.1f} s" if state.closed else ""
    failed = f", {state.failed} without a number" if state.failed else ""
    counted = f"{state.published} of {state.expected} pairs{failed}"
    console.print(Text(f"run {state.id} {ended}{took}: {counted}"))
    for matrix in report.matrices.values():
        console.print()
        console.print(matrix_view(matrix, console))
    if lines := list(reasons(report, state.id)):
        console.print()
        console.print(*lines, sep="\n")
    if report.bytes_by_node:
        name, most = report.bytes_by_node.most_common(1)[0]
        moved = sum(report.bytes_by_node.values()) // 2
        least = "at least " if report.bytes_are_least else ""
        console.print(
            Text(f"the tests moved {least}{in_bytes(moved)}; most at {name}: {in_bytes(most)}")
        )


def save_svg(state: Run, report: Report, path: Path) -> None:
    """
    Save what `show_report` prints as a picture.

    Raises:
        ConfigError: The file cannot be written.
    """
    # Nobody scrolls a picture: it is as wide as its widest matrix.
    width = max(SVG_WIDTH, *map(matrix_width, report.matrices.values()))
    with Path(os.devnull).open("w") as nowhere:
        console = recording(nowhere, width)
        show_report(state, report, console)
    try:
        drawn = console.export_svg(title="ptzmesh")
        write_whole(path, lambda part: part.write_text(drawn, encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(
            f"picture ({path}) cannot be written: {exc.strerror}; choose another --svg, or for "
            "the demo another --csv"
        ) from exc


def run_to_json(state: Run) -> dict[str, Any]:
    """Return a run as one JSON-ready object."""
    return {
        "run": state.id,
        "status": state.status,
        "probes": list(state.plan.probes),
        "nodes": [node.name for node in state.plan.nodes],
        "created": state.created,
        "closed": state.closed,
        "pairs": state.expected,
        "published": state.published,
        "failed": state.failed,
        "by": state.by,
    }
