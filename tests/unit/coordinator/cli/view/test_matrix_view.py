"""What a person sees of a matrix: every node, or the words that say how many are left out."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import cache

import pytest
from rich.cells import cell_len
from rich.console import Console
from samples import ping_statistics, transfer_statistics

from coordinator.cli.results import _text_line
from coordinator.cli.terminal.tables import Column, shortened, tables_that_fit
from coordinator.cli.view.matrix_view import matrix_view
from coordinator.cli.view.reasons import reasons
from coordinator.results.matrix import Matrix, make_report
from worker.model.errors import ConfigError
from worker.model.measurement import Measurement, Outcome
from worker.model.plan import Plan, PlannedNode
from worker.model.probe import with_options

SHORT, ALIKE = "n{}", "camera-on-the-north-roof-{}"


def names(count: int, pattern: str) -> list[str]:
    return [pattern.format(place) for place in range(count)]


def measured(
    source: str,
    target: str,
    ms: float | None,
    *,
    probe: str = "ping",
    loss_pct: float | None = 0.0,
    mbps: float | None = None,
    **detail: float,
) -> Measurement:
    answered = ms is not None or mbps is not None
    return Measurement(
        run="r",
        probe=probe,
        source=source,
        target=target,
        address="10.0.0.1",
        started_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
        outcome=Outcome.OK if answered else Outcome.NO_REPLY,
        error="" if answered else "none of 5 echoes was answered in time",
        latency_ms=ms,
        packet_loss_pct=loss_pct if answered else 100.0,
        throughput_mbps=mbps,
        detail=transfer_statistics(**detail) if mbps else ping_statistics(**detail),
    )


def plan(nodes: Sequence[str], *probes: str) -> Plan:
    planned = tuple(PlannedNode(name=name, address="10.0.0.1") for name in nodes)
    everyone = tuple(range(len(planned)))
    options = with_options(probes or ["ping"])
    return Plan(nodes=planned, sources=everyone, targets=everyone, options=options)


def mesh(nodes: Sequence[str]) -> Matrix:
    """Every RTT is another, with three digits; half of the echoes of one pair are lost."""
    pairs = [(a, b) for a in nodes for b in nodes if a != b]
    found = [measured(a, b, 10 + place % 80 + 0.1) for place, (a, b) in enumerate(pairs)]
    found.append(measured(nodes[0], nodes[1], 0.019, loss_pct=50.0))
    return make_report(plan(nodes), found).matrices["ping"]


@cache
def mesh_of(count: int, pattern: str) -> Matrix:
    return mesh(names(count, pattern))


def text_of(matrix: Matrix, width: int, height: int | None = None) -> str:
    text = io.StringIO()
    console = Console(file=text, width=width, no_color=True, markup=False)
    console.print(matrix_view(matrix, console, height))
    return text.getvalue()


@pytest.mark.parametrize("pattern", [SHORT, ALIKE])
@pytest.mark.parametrize("count", [2, 6, 14, 50, 101])
@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_matrix_fits_and_has_every_node_or_says_how_many_it_leaves_out(
    width: int, count: int, pattern: str
) -> None:
    text = text_of(mesh_of(count, pattern), width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "0.019 50%" in text
    cut = re.findall(r"[0-9.]+…", text)
    assert cut == []
    if "are not shown" not in text:
        rows = [line for line in text.splitlines() if re.search(r" - | -$", line)]
        assert len(rows) == count
        assert len({row.split()[0] for row in rows}) == count
        return
    pairs = count * (count - 1)
    assert f"{pairs} of {pairs} pairs" in text
    shown = re.search(r"worst (\d+) pairs; (\d+) pairs are not shown", " ".join(text.split()))
    assert shown is not None
    assert int(shown.group(1)) + int(shown.group(2)) == pairs
    if count > 15:
        assert f"{count - 15} nodes are not shown" in text


def test_where_names_are_too_wide_the_columns_are_numbered_like_the_rows() -> None:
    nodes = [*names(11, "{}-camera-on-the-north-roof-of-the-old-mill"), "hub"]
    text = text_of(mesh(nodes), 84)
    assert "not shown" not in text
    heads = text.splitlines()[0].split()
    assert heads[-12:] == [str(place) for place in range(1, 13)]
    assert re.search(r"(?m)^12 hub", text)


def test_columns_that_are_no_rows_have_their_numbers_told() -> None:
    nodes = names(14, ALIKE)
    whole = plan(nodes)
    some = Plan(nodes=whole.nodes, sources=(0,), targets=tuple(range(1, 14)))
    matrix = make_report(some, [measured(nodes[0], one, 100.0) for one in nodes[1:]])
    text = text_of(matrix.matrices["ping"], 80)
    for place, name in enumerate(nodes[1:], 1):
        assert f"{place} = {name}" in " ".join(text.split())


def test_a_live_matrix_is_no_longer_than_the_terminal() -> None:
    for count in (6, 14, 20, 50):
        for height in (24, 40):
            lines = text_of(mesh(names(count, SHORT)), 200, height).splitlines()
            assert len(lines) < height


def test_names_that_are_alike_stay_distinct_or_are_not_shortened() -> None:
    assert shortened(names(3, ALIKE), 6) == ["…oof-0", "…oof-1", "…oof-2"]
    assert shortened(["a-1-b", "a-2-b"], 3) is None
    assert shortened(["屋根のカメラ一", "屋根のカメラ二"], 5) == ["…ラ一", "…ラ二"]


def test_a_list_too_wide_goes_on_below_with_every_column() -> None:
    columns = [Column(f"head-{place}", []) for place in range(12)]
    console = Console(file=io.StringIO(), width=40)
    for table in tables_that_fit(columns, 40):
        console.print(table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is a StringIO
    assert max(map(len, lines)) <= 40
    assert {f"head-{place}" for place in range(12)} <= set(" ".join(lines).split())
    assert all(line.startswith("head-0") for line in lines if "head" in line)


def test_a_difference_of_which_the_median_is_negative_stars_only_what_stands_out() -> None:
    nodes = names(4, SHORT)
    pairs = [(a, b) for a in nodes for b in nodes if a != b]
    found = [
        measured(
            a, b, None, probe="throughput", mbps=90.0,
            rtt_idle_median_ms=1.0, rtt_loaded_median_ms=41.0 if place == 3 else 0.986,
        )
        for place, (a, b) in enumerate(pairs)
    ]  # fmt: skip
    report = make_report(plan(nodes, "throughput"), found, wide=True)
    text = text_of(report.matrices["throughput: RTT loaded - idle"], 100)
    assert text.count("-0.014") == 12  # eleven cells and the median
    assert "-0.014*" not in text
    assert "40.0*" in text


def test_a_figure_that_was_not_measured_is_no_ok() -> None:
    nodes = names(2, SHORT)
    found = [measured("n0", "n1", None, probe="udp", mbps=4.0, jitter_rfc3550_ms=0.2)]
    report = make_report(plan(nodes, "udp"), found, wide=True)
    assert list(report.matrices) == ["udp", "udp: jitter", "udp: RTT loaded - idle"]
    assert "0.200" in text_of(report.matrices["udp: jitter"], 80)
    text = text_of(report.matrices["udp: RTT loaded - idle"], 80)
    assert "ok" not in text.split()
    assert "n/a = measured, without this figure (it needs --probe ping" in " ".join(text.split())


def untimed(source: str, target: str) -> Measurement:
    answered = measured(source, target, 1.0, received=1, times_refused=1)
    return replace(answered, latency_ms=None)


def test_an_answer_of_no_certain_time_says_so_and_looks_like_no_failure() -> None:
    nodes = names(3, SHORT)
    found = [untimed("n0", "n1"), measured("n1", "n0", 0.2), measured("n2", "n0", None)]
    report = make_report(plan(nodes), found)
    text = " ".join(text_of(report.matrices["ping"], 80).split())
    assert (
        "untimed = answered, at no certain time (the source was busy, or its clock set) (1)" in text
    )
    assert "n/a" not in text
    assert next(str(line) for line in reasons(report, "r")).startswith("ping n2 -> n0: lost")
    # One that has other figures, and not this one, is told apart.
    more = [untimed("n0", "n1"), measured("n1", "n0", 0.2, rtt_p95_ms=0.3)]
    more.append(measured("n2", "n0", 0.2))
    text = text_of(make_report(plan(nodes), more, figures=("p95",)).matrices["ping: p95"], 80)
    assert "untimed = " in text
    assert "n/a = " in text


def test_a_result_of_no_certain_time_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    _text_line("1-0", untimed("n0", "n1"))
    assert "n0 -> n1  untimed: answered, at no certain time" in capsys.readouterr().out


def test_a_figure_is_shown_or_refused_with_what_it_needs() -> None:
    nodes = names(2, SHORT)
    found = [measured("n0", "n1", 1.0, rtt_p95_ms=3.25)]
    report = make_report(plan(nodes), found, figures=("p95", "throughput"))
    assert list(report.matrices) == ["ping: p95"]
    assert "3.25" in text_of(report.matrices["ping: p95"], 80)
    with pytest.raises(ConfigError, match=r"no p95: p95 needs .*--count 20"):
        make_report(plan(nodes), [measured("n0", "n1", 1.0)], figures=("p95",))


def test_a_loss_of_half_is_written_as_the_docs_write_it() -> None:
    nodes = names(2, SHORT)
    found = [measured("n0", "n1", 1.0, loss_pct=5.0), measured("n1", "n0", 1.0, loss_pct=99.9)]
    report = make_report(plan(nodes), found, figures=("loss",))
    text = text_of(report.matrices["ping: loss"], 80)
    assert " 5%" in text
    assert ">99%" in text
