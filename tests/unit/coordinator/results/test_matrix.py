"""The matrix: what is in a cell, what stands out, and how it looks without colour."""

from __future__ import annotations

import io
from datetime import datetime, timezone
from typing import Any

import pytest
from rich.console import Console

from coordinator.cli.view.matrix_view import matrix_view
from coordinator.results.matrix import Matrix, make_report
from worker.model.measurement import Measurement, Outcome
from worker.model.plan import Plan, PlannedNode


def plan(count: int) -> Plan:
    nodes = tuple(PlannedNode(name=f"n{i}", address=f"10.0.0.{i}") for i in range(count))
    return Plan(nodes=nodes, sources=tuple(range(count)), targets=tuple(range(count)))


def measured(source: str, target: str, rtt: float | None, **fields: Any) -> Measurement:
    usual: dict[str, Any] = {
        "outcome": Outcome.OK if rtt is not None else Outcome.NO_REPLY,
        "packet_loss_pct": 0.0 if rtt is not None else 100.0,
    }
    return Measurement(
        run="r",
        probe="ping",
        source=source,
        target=target,
        address="10.0.0.1",
        started_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
        latency_ms=rtt,
        **{**usual, **fields},
    )


def filled(count: int, *special: Measurement) -> Matrix:
    made = plan(count)
    names = [n.name for n in made.nodes]
    usual = [measured(s, t, 1.0) for s in names for t in names if s != t]
    return make_report(made, [*usual, *special]).matrices["ping"]


def shown(matrix: Matrix, width: int = 100) -> str:
    text = io.StringIO()
    Console(file=text, width=width, no_color=True).print(
        matrix_view(matrix, Console(file=io.StringIO(), width=width))
    )
    return text.getvalue()


def test_pair_not_yet_measured_has_no_value() -> None:
    empty = make_report(plan(3)).matrices["ping"]
    assert empty.rows() == [[None] * 3] * 3
    assert empty.median is None
    assert shown(empty).count("·") == 6


def test_lost_pair_has_no_value_and_is_not_zero() -> None:
    matrix = filled(3, measured("n0", "n1", None))
    assert matrix.value("n0", "n1") is None
    assert "lost" in shown(matrix)
    assert "lost = no reply (1)" in shown(matrix)


def test_pair_far_over_the_median_is_marked_without_colour() -> None:
    matrix = filled(4, measured("n0", "n1", 10.0))
    assert "10.0*" in shown(matrix)
    assert "* = over 3× the median (1.00 ms)" in shown(matrix)


def test_loss_is_written_beside_the_number() -> None:
    assert "1.00 20%" in shown(filled(3, measured("n0", "n1", 1.0, packet_loss_pct=20.0)))


def test_large_mesh_is_summed_up_instead_of_a_wall_of_digits() -> None:
    matrix = filled(30, measured("n3", "n7", 50.0), measured("n4", "n5", None))
    text = shown(matrix)
    assert "870 of 870 pairs" in text
    assert "worst 10 pairs; 860 pairs are not shown" in text
    assert "50.0*" in text
    assert "lost" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    for count in (4, 8, 12, 20, 21):
        lines = shown(filled(count), width).splitlines()
        assert max(map(len, lines)) <= width


def test_worst_node_comes_first() -> None:
    slow = [measured("n2", f"n{i}", 9.0) for i in (0, 1)]
    slow += [measured(f"n{i}", "n2", 9.0) for i in (0, 1)]
    assert filled(3, *slow).node_medians()[0] == ("n2", 9.0, 9.0)
