"""Seeded rounds: whatever happens when, every run ends and each pair has exactly one row."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from side_by_side import beside

from chaos.__main__ import SURVIVED, how_to_repeat, line_of
from chaos.rounds import SHORT, draw, hold

pytestmark = pytest.mark.chaos


def body(item: pytest.Function) -> None:
    """Draw and hold the round that the test is of."""
    seed, number = item.config.getoption("--chaos-seed"), item.callspec.params["round_number"]
    try:
        item.user_properties.append((SURVIVED, line_of(hold(draw(seed, number, SHORT)))))
    except AssertionError as exc:
        again = how_to_repeat(seed, number, short=True)
        raise AssertionError(f"{exc}\nrepeat it with:\n  {again}") from exc


@beside(body)
@pytest.mark.usefixtures("round_number")
def test_every_pair_has_exactly_one_row_after_faults_drawn_from_a_seed(
    outcome: Callable[[], None],
) -> None:
    outcome()
