"""
What a plan costs: how long its phases take, and which bytes move, those of questions included.

Pure. A question is asked before a number: who answers at an address (`identity`), and which
handshake came (`proxies`). Their number is bounded by the plan.
"""

from __future__ import annotations

from worker.model.options import deadline_s
from worker.model.plan import TRANSFERS, Plan

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
    if probe in TRANSFERS:
        return SLACK * (plan.transfer(probe).seconds + TEST_OVERHEAD_S) * plan.rounds(probe)
    seconds = {"ping": plan.ping.seconds, "tcp": plan.tcp.seconds, "redis": plan.redis.seconds}
    return seconds[probe] + plan.start_spread_s


def longest_seconds(plan: Plan, probe: str) -> float:
    """Longest time that a phase takes, in seconds: with each test ended at its deadline."""
    if probe not in TRANSFERS:
        return phase_seconds(plan, probe)
    longest_s = deadline_s(plan.transfer(probe), None) + TEST_OVERHEAD_S
    return SLACK * longest_s * plan.rounds(probe)


def questions_a_node(plan: Plan) -> int:
    """Give how many others a node may ask of each kind in one phase."""
    return max(1, MOST_QUESTIONS // len(plan.nodes))
