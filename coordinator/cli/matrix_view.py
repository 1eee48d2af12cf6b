"""How a matrix looks on a terminal, in a pipe and in an SVG; readable without colour."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.report import FAR_FACTOR, Cell, Matrix
from worker.measurement import Outcome

#: More columns than this are a wall of digits, whatever the width.
MAX_COLUMNS = 20
WORST_PAIRS = 10
WORST_NODES = 15

#: What a cell says when it has no number; the legend spells it out.
SHORT = {
    Outcome.NO_REPLY: "lost",
    Outcome.UNREACHABLE: "unreach",
    Outcome.UNRESOLVED: "no-name",
    Outcome.REFUSED: "refused",
    Outcome.TIMEOUT: "timeout",
    Outcome.TARGET_BUSY: "busy",
    Outcome.DENIED: "denied",
    Outcome.OVER_BUDGET: "budget",
    Outcome.SOURCE_LOST: "dead",
    Outcome.TOOL_MISSING: "no-tool",
    Outcome.BAD_REPLY: "bad",
    Outcome.CANCELLED: "cancel",
    Outcome.CRASHED: "crash",
}
MEANING = {
    Outcome.NO_REPLY: "no reply",
    Outcome.UNREACHABLE: "unreachable",
    Outcome.UNRESOLVED: "name does not resolve",
    Outcome.REFUSED: "refused",
    Outcome.TIMEOUT: "timed out",
    Outcome.TARGET_BUSY: "target busy",
    Outcome.DENIED: "denied by the node",
    Outcome.OVER_BUDGET: "over the data budget",
    Outcome.SOURCE_LOST: "source lost",
    Outcome.TOOL_MISSING: "tool or right missing",
    Outcome.BAD_REPLY: "bad reply",
    Outcome.CANCELLED: "cancelled",
    Outcome.CRASHED: "sweep crashed",
}


def matrix_view(matrix: Matrix, console: Console) -> RenderableType:
    """Give the matrix where it fits the console, else a summary."""
    shown = _table_that_fits(matrix, console) or _summary(matrix)
    return Group(shown, *_legend(matrix))


def _table_that_fits(matrix: Matrix, console: Console) -> Table | None:
    # A table of a million cells takes minutes to make and to measure.
    if len(matrix.targets) > MAX_COLUMNS:
        return None
    table = _table(matrix)
    return table if console.measure(table).minimum <= console.width else None


def number(value: float | None) -> str:
    """
    Write a number for people: three digits that matter.

    >>> [number(v) for v in (0.05123, 1.234, 12.34, 123.4, 1234.5, None)]
    ['0.051', '1.23', '12.3', '123', '1234', '']
    """
    if value is None:
        return ""
    if value < 1:
        return f"{value:.3f}"
    return f"{value:.{max(0, 3 - len(str(int(value))))}f}"


def _table(matrix: Matrix) -> Table:
    table = _new_table()
    table.add_column(f"{matrix.title} {matrix.unit}", no_wrap=True, style="bold")
    for target in matrix.targets:
        table.add_column(target, justify="right", no_wrap=True)
    typical = matrix.median
    for source in matrix.sources:
        cells = (_cell(matrix, source, target, typical) for target in matrix.targets)
        table.add_row(source, *cells)
    return table


def _new_table(title: str | None = None) -> Table:
    # Few lines: they are wider than a letter in some fonts, and say nothing.
    return Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False
    )


def _cell(matrix: Matrix, source: str, target: str, typical: float | None) -> Text:
    if source == target:
        return Text("-", style="dim")
    cell = matrix.cells.get((source, target))
    if cell is None:
        return Text("·", style="dim")
    return cell_text(matrix, cell, typical)


def cell_text(matrix: Matrix, cell: Cell, typical: float | None) -> Text:
    """Write one cell: the number, `*` when it stands out, the loss when there is one."""
    if cell.value is None:
        return Text(SHORT.get(cell.outcome, cell.outcome.value), style="bold red")
    far = matrix.is_far(cell, typical)
    text = number(cell.value) + ("*" if far else "")
    style = "red" if far else "green"
    if cell.loss_pct:
        text += f" {number(cell.loss_pct)}%"
        style = "red" if far or cell.loss_pct >= 5 else "yellow"
    return Text(text, style=style)


def _legend(matrix: Matrix) -> Iterable[Text]:
    seen = matrix.outcomes()
    parts = [f"{SHORT[o]} = {MEANING[o]} ({n})" for o, n in seen.items() if o in SHORT]
    typical = matrix.median
    if any(matrix.is_far(cell, typical) for cell in matrix.cells.values()):
        worse = f"over {FAR_FACTOR:.0f}×" if matrix.unit == "ms" else f"under 1/{FAR_FACTOR:.0f} of"
        parts.append(f"* = {worse} the median ({number(typical)} {matrix.unit})")
    if any(cell.loss_pct for cell in matrix.cells.values() if cell.value is not None):
        parts.append("n% = packets lost")
    if matrix.cells:
        yield Text("rows are sources, columns are targets", style="dim")
    for part in parts:
        yield Text(part, style="dim")


def _summary(matrix: Matrix) -> RenderableType:
    typical = matrix.median
    done, total = len(matrix.cells), matrix.pair_count
    head = Text(
        f"{matrix.title}: {done} of {total} pairs, median {number(typical) or '-'} {matrix.unit}",
        style="bold",
    )
    return Group(head, _worst_pairs(matrix, typical), _nodes(matrix))


def _worst_pairs(matrix: Matrix, typical: float | None) -> Table:
    table = _new_table("worst pairs")
    for name in ("source", "target", matrix.unit):
        table.add_column(name, no_wrap=True, justify="right" if name == matrix.unit else "left")
    failed = [(s, t, c) for (s, t), c in matrix.cells.items() if c.value is None][:WORST_PAIRS]
    for source, target, cell in failed + matrix.worst(WORST_PAIRS - len(failed)):
        table.add_row(source, target, cell_text(matrix, cell, typical))
    return table


def _nodes(matrix: Matrix) -> Table:
    table = _new_table(f"median per node, {matrix.unit}, worst first")
    table.add_column("node", no_wrap=True)
    for name in ("as source", "as target"):
        table.add_column(name, justify="right")
    medians = matrix.node_medians()
    for name, as_source, as_target in medians[:WORST_NODES]:
        table.add_row(name, number(as_source) or "-", number(as_target) or "-")
    if len(medians) > WORST_NODES:
        table.add_row(f"… {len(medians) - WORST_NODES} more", "", "")
    return table
