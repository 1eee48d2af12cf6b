"""
Tables that hide nothing: they fit the width that there is, or are continued below.

Widths are in terminal cells: a wide character takes two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from worker.model.text import printable

if TYPE_CHECKING:
    from rich.table import Table as FoldingTable

#: What stands between two columns: the padding of the left one, and the box's own.
GAP_CHARS = 2
ELLIPSIS = "…"


@dataclass(frozen=True)
class Column:
    """A column: its name, a cell a row, and whether it is of numbers."""

    name: str
    cells: Sequence[Text]
    is_number: bool = False

    def __post_init__(self) -> None:
        """Leave nothing in it that a terminal would obey."""
        object.__setattr__(self, "name", printable(self.name))
        for cell in self.cells:
            cell.plain = printable(cell.plain)

    @property
    def width(self) -> int:
        """Cells of the terminal that the widest of it takes."""
        return max(map(cell_len, (self.name, *(cell.plain for cell in self.cells))))


def columns_of(
    rows: Sequence[Mapping[str, str]], numbers: Collection[str] = (), styles: Sequence[str] = ()
) -> list[Column]:
    """
    Return the columns of rows that have the same names.

    Args:
        rows: At least one.
        numbers: Columns of numbers.
        styles: One of rich's for each row, if any.
    """
    styled = list(zip(rows, styles or [""] * len(rows), strict=True))
    return [
        Column(name, [Text(row[name], style) for row, style in styled], is_number=name in numbers)
        for name in rows[0]
    ]


@dataclass(frozen=True)
class Table:
    """
    Columns beside each other, with few lines: these are wider than a letter in some fonts.

    As rich's own table has them, in a tenth of its time: a matrix has hundreds of cells, and their
    widths are known. One that is wider than the console is rich's, which folds.
    """

    columns: Sequence[Column]
    title: str | None = None

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType | Segment]:
        """Yield the lines, as rich asks for them."""
        width = width_of(self.columns)
        if width > options.max_width:
            yield self._folded()
            return
        if self.title:
            yield Text(self.title, style="table.title")
        heads = [Text(column.name, style="table.header") for column in self.columns]
        sides = [(column.width, column.is_number) for column in self.columns]
        yield from _line(console, heads, sides)
        yield Segment("─" * width + "\n")
        for cells in zip(*(column.cells for column in self.columns), strict=True):
            yield from _line(console, cells, sides)

    def _folded(self) -> FoldingTable:
        table = new_table(self.title)
        for column in self.columns:
            side = "right" if column.is_number else "left"
            table.add_column(Text(column.name), justify=side, overflow="fold")  # type: ignore[arg-type]  # one of rich's words
        for cells in zip(*(column.cells for column in self.columns), strict=True):
            table.add_row(*cells)
        return table


def _line(
    console: Console, cells: Iterable[Text], sides: Iterable[tuple[int, bool]]
) -> Iterator[Segment]:
    """Yield the segments of a line: cells of a width each, which numbers fill from the right."""
    blank = ""
    for cell, (width, is_number) in zip(cells, sides, strict=True):
        room = " " * (width - cell_len(cell.plain))
        yield Segment(blank + room if is_number else blank)
        yield Segment(cell.plain, console.get_style(cell.style))
        blank = " " * GAP_CHARS if is_number else room + " " * GAP_CHARS
    yield Segment(blank[GAP_CHARS:] + "\n")


def new_table(title: str | None = None) -> FoldingTable:
    """Return an empty table of rich's own; most commands need none, and it is long to import."""
    from rich import box
    from rich.table import Table as FoldingTable

    return FoldingTable(
        title=title and Text(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, GAP_CHARS - 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )


def width_of(columns: Sequence[Column]) -> int:
    """Return the width of a table of these columns."""
    return sum(column.width for column in columns) + GAP_CHARS * (len(columns) - 1)


def tables_that_fit(columns: Sequence[Column], width: int, title: str | None = None) -> list[Table]:
    """
    Build all columns into as many tables as the width asks for; each begins with the first column.

    Args:
        columns: The first names the rows.
        width: Of the console, in cells.
        title: Of the first table.
    """
    first, *rest = columns
    groups = [[first]]
    for column in rest:
        if len(groups[-1]) > 1 and width_of([*groups[-1], column]) > width:
            groups.append([first])
        groups[-1].append(column)
    return [Table(group, None if place else title) for place, group in enumerate(groups)]


def shortened(names: Sequence[str], width: int) -> list[str] | None:
    """
    Shorten names to a width, so that each still differs from every other; None if that cannot be.

    What all names have in common goes first, then the beginning or the end of the long ones.

    >>> shortened(["camera-roof-1", "camera-roof-2", "hub"], 5)
    ['…of-1', '…of-2', 'hub']
    >>> shortened(["east-camera", "west-camera"], 5)
    ['east…', 'west…']
    >>> shortened(["camera-1-a", "camera-2-a"], 3) is None
    True
    """
    for cut in (_tail, _head, _middle):
        short = [name if cell_len(name) <= width else cut(name, width) for name in names]
        if len(set(short)) == len(set(names)):
            return short
    return None


def _tail(name: str, width: int) -> str:
    while name and cell_len(name) > width - 1:
        name = name[1:]
    return ELLIPSIS + name


def _head(name: str, width: int) -> str:
    while name and cell_len(name) > width - 1:
        name = name[:-1]
    return name + ELLIPSIS


def _middle(name: str, width: int) -> str:
    half = (width - 1) // 2
    head = _head(name, width - half).removesuffix(ELLIPSIS)
    return head + _tail(name, half + 1) if half else _head(name, width)
