"""The tournament's order: everyone meets everyone, in rounds without a clash."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest

from worker.model.tournament import least_rounds, plays_first, preferred, tournament_order

COUNTS = [*range(2, 20), 50, 101]


@pytest.mark.parametrize("count", COUNTS)
def test_each_other_node_is_met_once(count: int) -> None:
    for index in range(count):
        others = [other for other in range(count) if other != index]
        assert sorted(tournament_order(index, count)) == others


@pytest.mark.parametrize("count", [n for n in COUNTS if n % 2 == 0])
def test_in_each_round_of_an_even_mesh_all_nodes_are_paired(count: int) -> None:
    orders = [tournament_order(index, count) for index in range(count)]
    for partners in zip(*orders, strict=True):
        assert all(partners[partners[index]] == index for index in range(count))


@pytest.mark.parametrize("count", COUNTS)
def test_one_of_each_two_does_the_test_of_both_directions(count: int) -> None:
    done = [
        sum(plays_first(index, other, count) for other in range(count) if other != index)
        for index in range(count)
    ]
    for index in range(count):
        for other in range(index):
            assert plays_first(index, other, count) != plays_first(other, index, count)
    assert max(done) - min(done) <= 1


def test_order_is_kept_for_some_of_the_targets() -> None:
    assert preferred(0, 8, [5, 1, 0, 3]) == [n for n in tournament_order(0, 8) if n in (1, 3, 5)]


def test_mesh_of_one_has_no_pair_and_takes_no_time() -> None:
    assert tournament_order(0, 1) == []
    assert least_rounds([]) == 0


@pytest.mark.parametrize("count", COUNTS)
def test_full_mesh_needs_no_more_rounds_than_the_tournament_has(count: int) -> None:
    assert least_rounds(permutations(range(count), 2)) == 2 * (count - 1 + count % 2)
    assert least_rounds(combinations(range(count), 2)) == count - 1 + count % 2
