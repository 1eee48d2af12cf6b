"""
What a plan costs: how long its phases take, and how many questions it asks.

Pure. A question is asked before a number: who answers at an address (`identity`), and which
handshake came (`proxies`). What bytes move is in `worker.probes.traffic`.
"""

from __future__ import annotations

from worker.model.plan import Plan

#: What one test takes beyond its data, and how far a mesh stays behind the bound, at worst.
TEST_OVERHEAD_S, SLACK = 1.0, 1.5
#: Asked by all nodes in one phase, at most: all of a mesh of a hundred. Each costs the shared Redis
#: some commands within the first second.
MOST_QUESTIONS = 10_000


def phase_seconds(plan: Plan, probe: str, *, at_worst: bool = False) -> float:
    """
    Return the time that a phase takes on a mesh that has nothing else to do, in seconds.

    The longest, but for tests with two ends: these take so long on a LAN, one at a time on each
    node, and on a shared link as many as it carries, with gaps of half as much; or, at worst, with
    each test ended at its deadline.
    """
    options = plan.options[probe]
    once_s = options.longest_s if at_worst else options.seconds
    if plan.kind(probe).has_two_ends:
        return SLACK * (once_s + TEST_OVERHEAD_S) * plan.rounds(probe)
    return once_s + plan.start_spread_s


def questions_a_node(plan: Plan) -> int:
    """Return how many others a node may ask of each kind in one phase."""
    return max(1, MOST_QUESTIONS // len(plan.nodes))
