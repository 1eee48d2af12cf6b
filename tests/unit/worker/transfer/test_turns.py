"""How near keeps to the order: each state, and what leads out of it."""

from __future__ import annotations

import time

import pytest
import redis

from worker.transfer.leases import Attempt, End
from worker.transfer.turns import CALL_AGAIN_S, PATIENCE_S, Order, Turns

BUSY, HELD = Attempt(), Attempt(near_held=True)
OVER = Attempt(over_budget=("b",))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def turns() -> Turns:
    return Turns(connection=redis.Redis(), near=End(name="a"), remaining=[End(name="b")])


def test_first_in_order_is_waited_for_in_all_and_then_no_more(
    turns: Turns, now: list[float]
) -> None:
    assert turns._wait_s(BUSY) == pytest.approx(PATIENCE_S)
    assert turns.order is Order.TRIED
    now[0] += PATIENCE_S / 2
    assert turns._wait_s(BUSY) == pytest.approx(PATIENCE_S / 2)
    now[0] += PATIENCE_S
    assert turns._wait_s(BUSY) == 0.0
    assert turns.order is Order.GIVEN_UP
    assert turns._wait_s(BUSY) == CALL_AGAIN_S
    assert turns._wait_s(HELD) == CALL_AGAIN_S
    assert turns.order is Order.GIVEN_UP


def test_time_in_which_near_is_tested_itself_is_no_waiting(turns: Turns, now: list[float]) -> None:
    turns._wait_s(BUSY)
    now[0] += PATIENCE_S / 2
    assert turns._wait_s(HELD) == CALL_AGAIN_S
    assert turns.order is Order.KEPT
    now[0] += CALL_AGAIN_S
    assert turns._wait_s(BUSY) == pytest.approx(PATIENCE_S)
    assert turns.order is Order.TRIED


@pytest.mark.parametrize("order", Order)
def test_one_that_is_over_its_budget_is_not_waited_for(turns: Turns, order: Order) -> None:
    turns.order = order
    assert turns._wait_s(OVER) == 0.0
    assert turns.order is order
