"""How long the host's parts take, recorded beside what the network did."""

from __future__ import annotations

import time

import pytest

from worker.model.measurement import Measurement, Outcome
from worker.monitor import activity, process, timeit, timing


def recorded() -> list[Measurement]:
    return [entry.measurement for entry in process.recorder()._for_csv]


def test_a_function_keeps_its_name_its_arguments_and_its_result() -> None:
    @timeit("double")
    def double(number: int, *, plus: int = 0) -> int:
        """Give twice the number."""
        return 2 * number + plus

    begun = time.monotonic()
    assert double(2, plus=1) == 5
    took_s = time.monotonic() - begun
    assert (double.__name__, double.__doc__) == ("double", "Give twice the number.")
    (one,) = recorded()
    assert (one.probe, one.target, one.outcome) == ("timeit", "double", Outcome.OK)
    assert 0 <= one.detail.more["elapsed_s"] <= took_s


def test_what_is_raised_is_recorded_and_raised() -> None:
    @timeit("fails")
    def fails() -> None:
        raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError):
        fails()
    (one,) = recorded()
    assert (one.outcome, one.error) == (Outcome.CRASHED, "ZeroDivisionError: no")


def test_a_recursive_function_is_timed_each_time() -> None:
    @timeit("down")
    def down(number: int) -> int:
        return 0 if number == 0 else down(number - 1)

    down(3)
    times = [one.detail.more["elapsed_s"] for one in recorded()]
    assert times == sorted(times)
    assert len(times) == 4


def test_a_block_is_timed_and_tagged() -> None:
    with activity("train"), timeit("step"):
        pass
    assert recorded()[0].detail.more["activity"] == "train"


def test_recording_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError

    monkeypatch.setattr(timing, "recorder", broken)
    with timeit("step"):
        pass
