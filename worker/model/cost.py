"""
What a plan costs: how long its phases take, and which bytes move, those of questions included.

Pure. A question is asked before a number: who answers at an address (`identity`), and which
handshake came (`proxies`). Their number is bounded by the plan.
"""

from __future__ import annotations

from worker.model.plan import Plan

#: What one test takes beyond its data, and how far a mesh stays behind the bound, at worst.
TEST_OVERHEAD_S, SLACK = 1.0, 1.5


#: Asked by all nodes in one phase, at most: all of a mesh of a hundred. Each costs the shared Redis
#: some commands within the first second.
MOST_QUESTIONS = 10_000


def phase_seconds(plan: Plan, probe: str) -> float:
    """
    Time that a phase takes on a mesh that has nothing else to do, in seconds.

    The longest, but for tests with two ends: these take so long on a LAN, one at a time on each
    node, and on a shared link as many as it carries, with gaps of half as much.
    """
    return _phase_seconds(plan, probe, plan.options[probe].seconds)


def longest_seconds(plan: Plan, probe: str) -> float:
    """Longest time that a phase takes, in seconds: with each test ended at its deadline."""
    return _phase_seconds(plan, probe, plan.options[probe].longest_s)


def _phase_seconds(plan: Plan, probe: str, once_s: float) -> float:
    if plan.kind(probe).has_two_ends:
        return SLACK * (once_s + TEST_OVERHEAD_S) * plan.rounds(probe)
    return once_s + plan.start_spread_s


def questions_a_node(plan: Plan) -> int:
    """Return how many others a node may ask of each kind in one phase."""
    return max(1, MOST_QUESTIONS // len(plan.nodes))
