"""The host hears of trouble by one log line, and by nothing else."""

from __future__ import annotations

import logging

import pytest

from worker.monitor import guard
from worker.monitor.guard import forget, log_once, never_raises


@never_raises(lambda: -1)
def half(number: int) -> int:
    """Give half of an even number."""
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def test_what_is_raised_is_a_log_line_and_a_value(caplog: pytest.LogCaptureFixture) -> None:
    assert [half(4), half(3), half(5)] == [2, -1, -1]
    assert caplog.text.count("half failed: ValueError") == 1


def test_wrong_arguments_raise_nothing_either() -> None:
    assert half() == -1  # type: ignore[call-arg]  # that is the test


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_the_hosts_own_end_passes(kind: type[BaseException]) -> None:
    @never_raises(lambda: None)
    def ended() -> None:
        raise kind

    with pytest.raises(kind):
        ended()


def test_a_trouble_is_logged_once_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    assert [log_once("a", "away"), log_once("a", "away"), log_once("b", "full")] == [
        True,
        False,
        True,
    ]
    forget("a")
    assert log_once("a", "away")
    assert len(caplog.records) == 3
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_many_troubles_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_REMEMBERED", 2)
    for number in range(100):
        log_once(str(number), "trouble")
    assert len(guard._logged_at) == 2
