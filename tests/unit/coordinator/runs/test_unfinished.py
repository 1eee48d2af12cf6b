"""When a source counts as lost, and when it does not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from coordinator.runs.row_state import RowState
from coordinator.runs.unfinished import MAX_ATTEMPTS, QUIET_S, Action, Gone, Lost, judge
from worker.model.measurement import Outcome
from worker.wire import liveness

ALIVE = liveness.ALIVE_S


def row(**fields: Any) -> RowState:
    usual: dict[str, Any] = {
        "name": "n1",
        "silent_s": 3.0,
        "outbox_bytes": 0,
        "begun": "quiet_s" in fields,
        "restarted": False,
        "quiet_s": 0.0,
        "job": "queued",
        "in_queue": True,
        "served": True,
        "attempts": 1,
        "unserved_s": None,
    }
    return RowState(**{**usual, **fields})


@pytest.mark.parametrize("silent_s", [math.inf, ALIVE + 1.0])
def test_source_without_heartbeat_is_lost(silent_s: float) -> None:
    verdict = judge(row(silent_s=silent_s))
    assert isinstance(verdict, Gone)
    assert verdict.of("n1").outcome is Outcome.SOURCE_LOST
    # Under --reverse it performs the tests whose data it gets: there it is the target.
    assert verdict.of("n2").outcome is Outcome.TARGET_LOST
    assert verdict.of("n2").error.startswith("target n1 was n")


def test_source_that_waits_its_turn_is_never_lost() -> None:
    assert judge(row(in_queue=True)) is Action.WAIT


def test_sweep_that_gives_no_sign_of_life_is_lost() -> None:
    late = row(quiet_s=QUIET_S + 1, job="started", in_queue=False)
    assert isinstance(judge(late), Gone)


def test_sweep_that_gave_a_sign_of_life_is_waited_for() -> None:
    assert judge(row(quiet_s=QUIET_S - 1, job="started", in_queue=False)) is Action.WAIT


def test_quiet_sweep_whose_results_wait_on_disk_is_waited_for() -> None:
    assert judge(row(quiet_s=999.0, job=None, outbox_bytes=10)) is Action.WAIT


def test_sweep_that_failed_is_crashed() -> None:
    assert judge(row(quiet_s=1.0, job="failed", in_queue=False)) is Action.WAIT
    verdict = judge(row(quiet_s=liveness.HEARTBEAT_S + 3, job="failed", in_queue=False))
    assert isinstance(verdict, Lost)
    assert verdict.outcome is Outcome.CRASHED


def test_sweep_that_failed_is_waited_for_until_its_node_is_heard_again() -> None:
    failed = {"quiet_s": liveness.HEARTBEAT_S + 6.0, "job": "failed", "in_queue": False}
    assert judge(row(silent_s=liveness.HEARTBEAT_S + 9.0, **failed)) is Action.WAIT
    assert isinstance(judge(row(silent_s=1.0, **failed)), Lost)


def test_sweep_of_a_process_that_was_restarted_is_enqueued_again() -> None:
    assert judge(row(quiet_s=5.0, restarted=True, job="started")) is Action.ENQUEUE


@pytest.mark.parametrize("job", [None, "queued", "failed"])
def test_job_that_vanished_before_it_began_is_enqueued_again(job: str | None) -> None:
    assert judge(row(job=job, in_queue=False)) is Action.ENQUEUE


def test_queue_that_nobody_serves_is_given_time_then_lost() -> None:
    assert judge(row(served=False)) is Action.MARK_UNSERVED
    assert judge(row(served=False, unserved_s=ALIVE - 1.0)) is Action.WAIT
    assert isinstance(judge(row(served=False, unserved_s=ALIVE + 1.0)), Gone)
    assert judge(row(unserved_s=ALIVE + 1.0)) is Action.MARK_SERVED


def test_job_that_was_just_taken_is_given_time_to_begin() -> None:
    taken = {"job": "started", "in_queue": False}
    assert judge(row(**taken)) is Action.MARK_UNSERVED
    assert judge(row(unserved_s=ALIVE - 1.0, **taken)) is Action.WAIT
    assert judge(row(unserved_s=ALIVE + 1.0, **taken)) is Action.ENQUEUE


def test_row_whose_process_dies_each_time_ends_as_crashed() -> None:
    verdict = judge(row(job=None, in_queue=False, attempts=MAX_ATTEMPTS))
    assert isinstance(verdict, Lost)
    assert verdict.outcome is Outcome.CRASHED


def test_row_that_a_node_of_another_wire_version_refuses_is_denied_in_its_words() -> None:
    verdict = judge(row(in_queue=False, job="finished", refused="cam-2: upgrade"))
    assert verdict == Lost(Outcome.DENIED, "cam-2: upgrade")
