"""Seeded rounds: whatever happens when, every run ends and each pair has exactly one row."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chaos.__main__ import how_to_repeat, line_of
from chaos.together import SURVIVED, UnderWay

pytestmark = pytest.mark.chaos


def test_every_pair_has_exactly_one_row_after_faults_drawn_from_a_seed(
    under_way: UnderWay, round_number: int, record_property: Callable[[str, object], None]
) -> None:
    try:
        record_property(SURVIVED, line_of(under_way.rounds[round_number].result()))
    except AssertionError as exc:
        again = how_to_repeat(under_way.seed, round_number, short=True)
        raise AssertionError(f"{exc}\nrepeat it with:\n  {again}") from exc
