"""Records carry what the host says that it does."""

from __future__ import annotations

import threading

import pytest

from worker.monitor import tagging
from worker.monitor.tagging import activity, set_cycle, tags


def test_the_innermost_activity_counts_and_ends_with_its_block() -> None:
    with activity("train"):
        with activity("save"):
            assert tags()["activity"] == "save"
        assert tags()["activity"] == "train"
    assert "activity" not in tags()


def test_an_exception_of_the_hosts_passes_and_ends_the_activity() -> None:
    with pytest.raises(ZeroDivisionError), activity("train"):
        raise ZeroDivisionError
    assert "activity" not in tags()


def test_activities_of_threads_may_end_in_any_order() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with activity("other"):
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with activity("mine"):
        thread.start()
        assert entered.wait(60)
    assert tags()["activity"] == "other"
    leave.set()
    thread.join()
    assert "activity" not in tags()


def test_the_cycle_stays_until_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tagging, "_cycle", None)
    assert tags() == {}
    set_cycle(3)
    assert tags() == {"cycle": 3}
