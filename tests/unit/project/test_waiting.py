"""A test that waits in vain says what it waited for."""

from __future__ import annotations

import pytest
import redis
from waiting import wait_until


def test_condition_is_looked_at_until_it_is_true() -> None:
    looks = iter([False, 0, "", "yes"])
    wait_until(lambda: next(looks), "the fourth look", every_s=0.001)
    assert list(looks) == []


def test_failure_says_what_was_waited_for_and_how_long() -> None:
    with pytest.raises(AssertionError, match=r"^not within 0\.01 s: the tide turns$"):
        wait_until(lambda: False, "the tide turns", 0.01, every_s=0.001)


def test_condition_that_is_true_when_the_time_is_up_holds() -> None:
    wait_until(lambda: True, "nothing", 0.0)


def test_redis_that_is_away_is_waited_for_and_named_as_the_cause() -> None:
    def look() -> bool:
        raise redis.ConnectionError("refused")

    with pytest.raises(AssertionError, match="its answer") as caught:
        wait_until(look, "its answer", 0.01, every_s=0.001)
    assert isinstance(caught.value.__cause__, redis.ConnectionError)


def test_any_other_trouble_ends_the_wait_at_once() -> None:
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: 1 / 0, "never")
