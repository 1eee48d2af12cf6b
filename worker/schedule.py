"""
In which order a source prefers its targets, so that a whole mesh keeps busy without a barrier.

Pure. The order is a round-robin tournament by the circle method: in each round every node has one
partner, and the two test each other first one way, then the other. Followed by all, N nodes (N
even) need N - 1 rounds of two tests, which is the least that is possible.
"""

from __future__ import annotations

from collections.abc import Sequence


def tournament_order(index: int, count: int) -> list[int]:
    """
    Give all other nodes in the order of the rounds in which they are this node's partner.

    Args:
        index: The node, below `count`.
        count: Number of nodes; with an odd one each sits out one round.

    >>> [tournament_order(i, 4) for i in range(4)]
    [[3, 1, 2], [2, 0, 3], [1, 3, 0], [0, 2, 1]]
    """
    return [p for p in (_partner(index, r, count) for r in range(_rounds(count))) if p is not None]


def preferred(index: int, count: int, targets: Sequence[int]) -> list[int]:
    """Give these targets in the tournament's order; the node itself is left out."""
    wanted = set(targets)
    return [partner for partner in tournament_order(index, count) if partner in wanted]


def plays_first(index: int, partner: int, count: int) -> bool:
    """
    Say which of two nodes does the one test of a pair that covers both directions (`--bidir`).

    Each node does half of its pairs, and one of two nodes does it, never both.

    >>> [sum(plays_first(i, j, 6) for j in range(6) if j != i) for i in range(6)]
    [3, 3, 3, 2, 2, 2]
    """
    ahead = (partner - index) % count
    return ahead < count - ahead or (2 * ahead == count and index < partner)


def lower_bound_s(test_s: float, count: int, *, bidir: bool = False) -> float:
    """
    Give the least time for all ordered pairs of a mesh, one test at a time on each node.

    >>> lower_bound_s(1.0, 8), lower_bound_s(1.0, 7), lower_bound_s(1.0, 8, bidir=True)
    (14.0, 14.0, 7.0)
    """
    return test_s * _rounds(count) * (1 if bidir else 2)


def _rounds(count: int) -> int:
    return 0 if count < 2 else count - 1 + count % 2


def _partner(index: int, number: int, count: int) -> int | None:
    """Give the partner in a round: the last place of an even table stands still, others turn."""
    rounds = _rounds(count)
    fixed = rounds  # a node's index when `count` is even, else nobody
    if index == fixed:
        # Twice this place is the round's number, modulo the (odd) number of rounds.
        partner = number * (rounds + 1) // 2 % rounds
    else:
        partner = (number - index) % rounds
        if partner == index:
            partner = fixed
    return partner if partner < count else None
