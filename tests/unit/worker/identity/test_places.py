"""When a node of a row has moved since the row looked where it is."""

from __future__ import annotations

from worker.identity.places import NAME_HOLDS_S, Moves


def moves(age_s: float) -> Moves:
    found = Moves({"b": "localhost", "c": "10.0.0.3"}, family=4)
    found.looked_at -= age_s
    return found


def test_name_that_leads_elsewhere_by_now_is_left_to_be_looked_up_and_judged_again() -> None:
    row = moves(NAME_HOLDS_S + 1)
    assert not row.left("b", "localhost", [(0, 1)], "127.0.0.1")
    assert not row.left("c", "10.0.0.3", [(0, 2)], "10.0.0.3")
    assert row.left("b", "localhost", [(0, 1)], "10.0.0.9")
    assert row.pairs == [(0, 1)]
    # One that was looked up just now is not again: what it leads to then was judged.
    assert not moves(0).left("b", "localhost", [(0, 1)], "10.0.0.9")


def test_one_that_the_registry_has_elsewhere_or_not_at_all_is_left() -> None:
    row = moves(0)
    assert row.left("c", "10.0.0.4", [(0, 2)], "10.0.0.3")
    assert row.left("b", "", [(0, 1)], "127.0.0.1")
    assert row.pairs == [(0, 2), (0, 1)]
