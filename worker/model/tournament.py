"""
In which order a source prefers its targets, so that a whole mesh keeps busy without a barrier.

Pure. The order is a round-robin tournament by the circle method: in each round every node has one
partner, and the two test each other first one way, then the other. Followed by all, N nodes (N
even) need N - 1 rounds of two tests, which is the least that is possible.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import ceil


def tournament_order(index: int, count: int) -> list[int]:
    """
    Return all other nodes in the order of the rounds in which they are this node's partner.

    Args:
        index: The node, below `count`.
        count: Number of nodes; with an odd one each sits out one round.

    >>> [tournament_order(i, 4) for i in range(4)]
    [[3, 1, 2], [2, 0, 3], [1, 3, 0], [0, 2, 1]]
    """
    return [p for p in (_partner(index, r, count) for r in range(_rounds(count))) if p is not None]


def preferred(index: int, count: int, targets: Sequence[int]) -> list[int]:
    """Return these targets in the tournament's order; the node itself is left out."""
    wanted = set(targets)
    return [partner for partner in tournament_order(index, count) if partner in wanted]


def plays_first(index: int, partner: int, count: int) -> bool:
    """
    Whether a node does the one test with its partner that covers both directions (`--bidir`).

    Each node does half of its pairs, and one of two nodes does it, never both.

    >>> [sum(plays_first(i, j, 6) for j in range(6) if j != i) for i in range(6)]
    [3, 3, 3, 2, 2, 2]
    """
    ahead = (partner - index) % count
    return ahead < count - ahead or (2 * ahead == count and index < partner)


def least_rounds(
    tests: Iterable[tuple[int, int]], links: Mapping[int, Mapping[str, int]] | None = None
) -> int:
    """
    Return how many tests at least follow one another where each node takes part in one at a time.

    It is the most that one node has, that one shared link has for each that it carries at once, or
    all of them for each pair of nodes that there is: the greatest of these.

    Args:
        tests: The two nodes of each.
        links: Node → the shared links on its way, and how many tests each carries at once.

    >>> from itertools import combinations, permutations
    >>> [least_rounds(permutations(range(n), 2)) for n in (8, 7)], least_rounds([(0, 1)])
    ([14, 14], 1)
    >>> least_rounds(combinations(range(4), 2), {node: {"cell": 1} for node in range(4)})
    6
    """
    links, through = links or {}, Counter[str]()

    def counted(test: tuple[int, int]) -> tuple[int, int]:
        through.update({link for node in test for link in links.get(node, ())})
        return test

    load = Counter(chain.from_iterable(map(counted, tests) if links else tests))
    if not load:
        return 0
    rounds = [max(load.values()), ceil(load.total() / 2 / (len(load) // 2))]
    for link, count in through.items():
        rounds.append(ceil(count / min(each[link] for each in links.values() if link in each)))
    return max(rounds)


def _rounds(count: int) -> int:
    return 0 if count < 2 else count - 1 + count % 2


def _partner(index: int, number: int, count: int) -> int | None:
    """Return the partner in a round: the last node of an even table stands still, others turn."""
    rounds = _rounds(count)  # also the index of the last node when `count` is even, else nobody's
    # Twice the partner of the last node is the round's number, modulo the (odd) number of rounds.
    partner = (number * (rounds + 1) // 2 if index == rounds else number - index) % rounds
    partner = rounds if partner == index else partner
    return partner if partner < count else None


def sampled(nodes: Sequence[int], count: int, seed: str) -> dict[int, tuple[int, ...]]:
    """
    Choose by a seed which other nodes each node measures.

    The nodes are put in a ring, and the same steps are taken from each: so each node is a target as
    often as it is a source. By digests, as every node must find the same, whatever its Python.
    """

    def lot(*parts: object) -> bytes:
        return hashlib.sha256("/".join(map(str, (seed, *parts))).encode()).digest()

    ring = sorted(nodes, key=lambda node: lot("ring", node))
    steps = sorted(range(1, len(ring)), key=lambda step: lot("step", step))[:count]
    return {
        node: tuple(sorted(ring[(start + step) % len(ring)] for step in steps))
        for start, node in enumerate(ring)
    }
