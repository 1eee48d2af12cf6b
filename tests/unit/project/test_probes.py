"""Each probe is one row of a table, which everything else reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from coordinator.results.figures import FIGURES
from worker.model.csv_columns import CSV_COLUMNS
from worker.model.options import FLAG
from worker.model.probe import PROBES
from worker.node.measures import MEASURES

ROOT = Path(__file__).parents[3]
MODULES = sorted(path for side in ("coordinator", "worker") for path in (ROOT / side).rglob("*.py"))


def test_a_node_can_measure_each_probe() -> None:
    assert MEASURES.keys() == PROBES.keys()


@pytest.mark.parametrize("probe", PROBES)
def test_what_a_row_names_is_there(probe: str) -> None:
    row = PROBES[probe]
    assert set(row.figures) <= FIGURES.keys()
    headline = FIGURES[row.figures[0]]
    assert any(row.fills(column) for column in headline.columns)
    assert set(row.lacks) <= set(CSV_COLUMNS)
    assert row.options() == row.options(), "each option has a default"
    assert not (row.has_two_ends and row.target)


def test_page_of_the_probes_has_each_with_its_flags_in_the_order_of_phases() -> None:
    table = (ROOT / "docs" / "probes.md").read_text().partition("\nA run has one phase")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("| `")
    ]
    assert [row[0].strip("`") for row in rows] == list(PROBES)
    for probe, (*_, documented) in zip(PROBES.values(), rows, strict=True):
        if not documented.startswith("the same"):
            flags = {max(field.metadata[FLAG].names, key=len) for field in fields(probe.options)}
            assert set(re.findall(r"--[\w-]+", documented)) == flags


def comparisons(path: Path) -> Iterator[int]:
    """Yield the lines on which a probe is compared with a name of one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        texts = {
            one.value for side in sides for one in ast.walk(side) if isinstance(one, ast.Constant)
        }
        if texts & PROBES.keys() and any("probe" in ast.unparse(side) for side in sides):
            yield node.lineno


def test_no_module_decides_by_the_name_of_a_probe() -> None:
    found = {str(path.relative_to(ROOT)): list(comparisons(path)) for path in MODULES}
    assert {name: lines for name, lines in found.items() if lines} == {}
