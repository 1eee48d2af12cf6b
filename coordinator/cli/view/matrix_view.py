"""How a matrix looks on a terminal, in a pipe and in an SVG; readable without colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.text import Text

from coordinator.cli.terminal.cells import (
    NO_FIGURE,
    UNTIMED,
    WHY_UNTIMED,
    WORDS,
    cell_text,
    figure,
    number,
)
from coordinator.cli.terminal.tables import Column, Table, new_table, shortened, width_of
from coordinator.results.matrix import FAR_FACTOR, Cell, Matrix
from worker.model.measurement import Outcome

#: More columns than this are a wall of digits, whatever the width.
MAX_COLUMNS = 20
WORST_PAIRS = 10
WORST_NODES = 15
#: To these widths the names of columns are shortened, before numbers stand in their place.
NAME_WIDTHS = (16, 12, 9, 7, 5)
#: What stands around a matrix and around a summary: their headings, legend, and a progress line.
LINES_AROUND = 8


def matrix_view(matrix: Matrix, console: Console, height: int | None = None) -> RenderableType:
    """
    Return the whole matrix where it fits, else the worst of it, and how much that leaves out.

    Args:
        console: Where; its width bounds the columns.
        height: Lines that there are; None is as many as it takes.
    """
    limit = matrix.limit  # of a million cells: asked for once
    shown = None
    has_lines = height is None or len(matrix.sources) + LINES_AROUND <= height
    if len(matrix.targets) <= MAX_COLUMNS and has_lines:
        shown = _that_fits(matrix, _cells(matrix, limit), console.width)
    if shown is None:
        shown = _summary(matrix, limit, console.width, height)
    return Group(shown, *(Text(line, style="dim") for line in _legend(matrix, limit)))


def matrix_width(matrix: Matrix) -> int:
    """Return the width that a matrix needs with all names whole; 0 when no width is enough."""
    if len(matrix.targets) > MAX_COLUMNS:
        return 0
    return width_of([_row_names(matrix, matrix.sources), *_cells(matrix, matrix.limit)])


def _cells(matrix: Matrix, limit: float | None) -> list[Column]:
    return [
        Column(target, [_cell(matrix, source, target, limit) for source in matrix.sources], True)
        for target in matrix.targets
    ]


def _cell(matrix: Matrix, source: str, target: str, limit: float | None) -> Text:
    if source == target:
        return Text("-", style="dim")
    cell = matrix.cells.get((source, target))
    return Text("·", style="dim") if cell is None else cell_text(matrix, cell, limit)


def _row_names(matrix: Matrix, names: Sequence[str]) -> Column:
    head = f"{matrix.title} {matrix.unit}"
    return Column(head, [Text(name, style="bold") for name in names])


def _that_fits(matrix: Matrix, columns: Sequence[Column], width: int) -> RenderableType | None:
    """Return the table with the longest names for which there is room; None without room."""
    complete = [_row_names(matrix, matrix.sources), *columns]
    if width_of(complete) <= width:
        return Table(complete)
    return _with_short_names(matrix, columns, width) or _numbered(matrix, columns, width)


def _with_short_names(
    matrix: Matrix, columns: Sequence[Column], width: int
) -> RenderableType | None:
    names = list(dict.fromkeys([*matrix.sources, *matrix.targets]))
    for name_width in NAME_WIDTHS:
        short = shortened(names, name_width)
        if short is None:
            return None
        by_name = dict(zip(names, short, strict=True))
        renamed = [Column(by_name[column.name], column.cells, True) for column in columns]
        for row_names in (matrix.sources, [by_name[name] for name in matrix.sources]):
            tried = [_row_names(matrix, row_names), *renamed]
            if width_of(tried) <= width:
                return Table(tried)
    return None


def _numbered(matrix: Matrix, columns: Sequence[Column], width: int) -> RenderableType | None:
    """Number the columns; rows of the same names say which, and a line has the others."""
    places = {target: str(place) for place, target in enumerate(matrix.targets, 1)}
    numbered = [Column(places[column.name], column.cells, True) for column in columns]
    names = [f"{places.get(name, ''):>2} {name}" for name in matrix.sources]
    others = [name for name in matrix.targets if name not in set(matrix.sources)]
    longest = max(width - width_of(numbered) - 2, 0)
    if longest < cell_len(f"{matrix.title} {matrix.unit}"):
        return None
    short = shortened(names, longest)
    if short is None:
        return None
    key = Text(", ".join(f"{places[name]} = {name}" for name in others), style="dim")
    table = Table([_row_names(matrix, short), *numbered])
    return Group(table, key) if others else table


def _legend(matrix: Matrix, limit: float | None) -> Iterable[str]:
    if matrix.cells:
        yield "rows are sources, columns are targets"
    for outcome, count in matrix.outcomes().items():
        if outcome in WORDS:
            short, meaning = WORDS[outcome]
            yield f"{short} = {meaning} ({count})"
    cells = matrix.cells.values()
    bare = [cell.is_untimed for cell in cells if cell.value is None and cell.outcome is Outcome.OK]
    if untimed := sum(bare):
        yield f"{UNTIMED} = {WHY_UNTIMED} ({untimed})"
    if untimed < len(bare):
        yield f"{NO_FIGURE} = measured, without this figure (it needs {matrix.figure.needs})"
    if any(matrix.is_beyond(cell, limit) for cell in cells):
        yield f"* = {_stands_out(matrix, limit)} ({number(matrix.median)} {matrix.unit})"
    if any(cell.loss_pct for cell in cells if cell.value is not None):
        yield "n% = packets lost"


def _stands_out(matrix: Matrix, limit: float | None) -> str:
    if matrix.figure.minus:
        return f"over {number(limit)} {matrix.unit}, far from the median"
    if matrix.unit == "Mbit/s":
        return f"under 1/{FAR_FACTOR:.0f} of the median"
    return f"over {FAR_FACTOR:.0f}× the median"


def _summary(matrix: Matrix, limit: float | None, width: int, height: int | None) -> RenderableType:
    done, total = len(matrix.cells), matrix.pair_count
    unit = "" if matrix.unit == "%" else f" {matrix.unit}"
    median = f"{figure(matrix, matrix.median) or '-'}{unit}"
    head = Text(f"{matrix.title}: {done} of {total} pairs, median {median}", style="bold")
    most = WORST_PAIRS + WORST_NODES if height is None else max(2, height - LINES_AROUND - 6)
    pairs = min(WORST_PAIRS, most // 2)
    return Group(
        head,
        *_worst_pairs(matrix, limit, pairs, width),
        *_nodes(matrix, min(WORST_NODES, most - pairs), width),
    )


def _worst_pairs(
    matrix: Matrix, limit: float | None, count: int, width: int
) -> Iterable[RenderableType]:
    failed = [(s, t, c) for (s, t), c in matrix.cells.items() if c.value is None][:count]
    worst: list[tuple[str, str, Cell]] = failed + matrix.worst(count - len(failed))
    more = len(matrix.cells) - len(worst)
    left_out = f"; {more} pairs are not shown (all: ptzmesh show --json)" if more else ""
    yield Text(f"worst {len(worst)} pairs{left_out}", style="italic")
    sources, targets = [Text(source) for source, _, _ in worst], [Text(t) for _, t, _ in worst]
    values = [cell_text(matrix, cell, limit) for *_, cell in worst]
    columns = [Column("source", sources), Column("target", targets)]
    yield _listed([*columns, Column(matrix.unit, values, True)], width)


def _nodes(matrix: Matrix, count: int, width: int) -> Iterable[RenderableType]:
    medians = matrix.node_medians()
    shown = medians[:count]
    more = len(medians) - len(shown)
    left_out = f"; {more} nodes are not shown" if more else ""
    yield Text(f"median of each node, worst first{left_out}", style="italic")
    as_source = [Text(figure(matrix, value) or "-") for _, value, _ in shown]
    as_target = [Text(figure(matrix, value) or "-") for _, _, value in shown]
    columns = [
        Column("node", [Text(name) for name, *_ in shown]),
        Column(f"as source, {matrix.unit}", as_source, True),
        Column(f"as target, {matrix.unit}", as_target, True),
    ]
    yield _listed(columns, width)


def _listed(columns: Sequence[Column], width: int) -> RenderableType:
    """Return a short list as a table; where that is too wide, its cells one below the other."""
    if width_of(columns) <= width:
        return Table(columns)
    table = new_table()
    table.add_column("")
    table.add_column("", overflow="fold")
    for cells in zip(*(column.cells for column in columns), strict=True):
        for column, cell in zip(columns, cells, strict=True):
            table.add_row(column.name, cell)
    return table
