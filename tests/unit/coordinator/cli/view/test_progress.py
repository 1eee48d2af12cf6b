"""What a run's line of progress says, and the lines that say why pairs have no number."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
import redis

from coordinator.cli.view.progress import Progress, progress_line
from coordinator.cli.view.reasons import reasons
from coordinator.results.matrix import make_report
from worker.model.cost import phase_seconds
from worker.model.measurement import Measurement, Outcome
from worker.model.options import PingOptions, TcpOptions
from worker.model.plan import Plan, PlannedNode
from worker.wire.run_record import Run

NODES = tuple(PlannedNode(name=name, address="10.0.0.1") for name in ("a", "b", "c"))
EVERYONE = (0, 1, 2)
PLAN = Plan(
    nodes=NODES, sources=EVERYONE, targets=EVERYONE,
    options={"ping": PingOptions(count=100, interval_s=0.1), "tcp": TcpOptions()},
)  # fmt: skip
#: Never used while results come.
NOBODY = redis.Redis(port=1)


def run(published: int, phase: int = 0) -> Run:
    return Run(
        id="r", plan=PLAN, status="running", cancelled=False, phase=phase, created=0.0,
        closed=None, done={"ping": min(published, 6), "tcp": max(0, published - 6)},
        ok={"ping": 0, "tcp": 0}, by="me",
    )  # fmt: skip


def test_a_run_whose_pairs_are_all_in_has_no_time_left() -> None:
    progress = Progress(began=0.0)
    progress.update(run(12, 1), 7.8, NOBODY)
    matrix = make_report(PLAN).matrices["tcp"]
    assert progress.outlook(run(12, 1), matrix, 7.8) == "all pairs are in"


def test_a_phase_that_was_short_takes_its_rest_off_the_time_left() -> None:
    ping_s, tcp_s = phase_seconds(PLAN, "ping"), phase_seconds(PLAN, "tcp")
    progress = Progress(began=0.0)
    progress.update(run(0), 1.0, NOBODY)
    assert progress.left_s(run(0), 1.0) == pytest.approx(ping_s - 1.0 + tcp_s)
    progress.update(run(6, 1), 2.0, NOBODY)
    assert progress.left_s(run(6, 1), 2.0) == pytest.approx(tcp_s)


def test_a_run_over_its_time_says_whom_it_waits_for() -> None:
    progress = Progress(began=0.0)
    progress.update(run(7, 1), 1000.0, NOBODY)
    matrix = make_report(PLAN).matrices["tcp"]
    assert progress.outlook(run(7, 1), matrix, 2000.0) == "waiting for a, b and 1 more"


def test_the_bar_of_a_whole_run_has_its_own_colour() -> None:
    (bar,) = progress_line(run(12, 1), "all pairs are in").columns[2].cells
    assert bar.finished_style == bar.complete_style  # type: ignore[union-attr]  # a ProgressBar


def test_a_reason_is_said_once_with_its_pairs_and_what_helps() -> None:
    lost = [
        Measurement(
            run="r", probe="ping", source=source, target="c", address="10.0.0.1",
            outcome=Outcome.NO_REPLY, error="none of 5 echoes was answered in time",
            started_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
        )
        for source in ("a", "b")
    ]  # fmt: skip
    lines = [str(line) for line in reasons(make_report(PLAN, lost), "r")]
    assert lines == [
        "ping a -> c, b -> c: lost: none of 5 echoes was answered in time",
        "  look from both ends: ptzmesh doctor --between a c",
    ]


def test_many_reasons_are_left_to_the_results() -> None:
    found = [
        Measurement(
            run="r", probe="tcp", source=f"n{place}", target="c", address="10.0.0.1",
            outcome=Outcome.DENIED, error=f"reason {place}",
        )
        for place in range(20)
    ]  # fmt: skip
    lines = [str(line) for line in reasons(make_report(PLAN, found), "r-7")]
    assert len(lines) == 7
    assert lines[-1] == "and 14 pairs for other reasons: ptzmesh results --run r-7"
