"""What a run has found, in one piece: its heading, its matrices, why pairs have no number."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.text import Text

from coordinator.cli.terminal.screen import recording
from coordinator.cli.view.matrix_view import matrix_view, matrix_width
from coordinator.cli.view.reasons import reasons
from coordinator.results.matrix import Report
from worker.host.whole_file import write_whole
from worker.model.errors import ConfigError
from worker.model.text import in_bytes
from worker.wire.run_record import Run

SVG_WIDTH = 90


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
