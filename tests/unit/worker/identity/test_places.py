"""When a node of a row has moved since the row looked where it is."""

from __future__ import annotations

import redis

from worker.identity.places import NAME_HOLDS_S, Moves


class Registry(Moves):
    """As of a registry in which no record changes."""

    def is_registered_elsewhere(self, name: str) -> bool:
        return False


def moves(age_s: float) -> Registry:
    found = Registry(redis.Redis(), {"b": "localhost", "c": "10.0.0.3"}, family=4)
    found.looked_at -= age_s
    return found


def test_name_that_leads_elsewhere_by_now_is_left_to_be_looked_up_and_judged_again() -> None:
    row = moves(NAME_HOLDS_S + 1)
    assert not row.left("b", [(0, 1)], "127.0.0.1")
    assert not row.left("c", [(0, 2)], "10.0.0.3")
    assert row.left("b", [(0, 1)], "10.0.0.9")
    assert row.pairs == [(0, 1)]
    # One that was looked up just now is not again: what it leads to then was judged.
    assert not moves(0).left("b", [(0, 1)], "10.0.0.9")
