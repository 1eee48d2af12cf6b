"""
Which pairs of a row are measured, and at which addresses: of nodes registered, looked up, judged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from worker.identity.context import NodeContext
from worker.identity.targets import Looked, Targets
from worker.model.measurement import Measurement, Outcome
from worker.model.names import NodeName
from worker.model.plan import TargetNode
from worker.wire.rows import Row

Pair = tuple[int, int]
Pairs = Sequence[Pair]
#: What is measured of a row now: its pairs, and the judged address of each one's other node.
Ready = Mapping[Pair, TargetNode]


def targets_of(context: NodeContext, row: Row, others: Collection[int]) -> Targets:
    """Begin to look up where a row's other nodes are."""
    addresses = [row.plan.nodes[index].address for index in others]
    return Targets(addresses, context.given, row.plan.family)


def denied(row: Row, pairs: Pairs, strangers: Mapping[int, str]) -> list[Measurement]:
    """Return the records of the pairs whose other node is a stranger: see `strangers_of`."""
    reasons = ((pair, strangers.get(other(row, pair))) for pair in pairs)
    return [row.finding(pair, Outcome.DENIED, why) for pair, why in reasons if why is not None]


def other(row: Row, pair: Pair) -> int:
    """Return the node of a pair that the row's own node measures; itself where that is all."""
    source, target = pair
    return target if source == row.performer else source


def with_addresses(
    row: Row, pairs: Pairs, looked: Mapping[str, Looked]
) -> tuple[Ready, list[Measurement]]:
    """Part the pairs that are measured from those whose record says why they are not."""
    ready: dict[Pair, TargetNode] = {}
    findings = []
    for pair in pairs:
        node = row.plan.nodes[other(row, pair)]
        address = looked.get(node.address)
        if address is None:  # stopped before it was known
            continue
        if address.literal is None:
            error = f"{node.name}: {address.error}"
            findings.append(row.finding(pair, address.outcome, error))
        else:
            ready[pair] = TargetNode(**{**vars(node), "address": address.literal})
    return ready, findings


def with_literals(row: Row, ready: Ready) -> Row:
    """Return a row whose plan has the judged addresses of the nodes that are measured."""
    judged = {other(row, pair): node for pair, node in ready.items()}
    nodes = tuple(judged.get(index, node) for index, node in enumerate(row.plan.nodes))
    return replace(row, plan=replace(row.plan, nodes=nodes))


def strangers_of(
    context: NodeContext, row: Row, others: Collection[int], places: Mapping[NodeName, str]
) -> Mapping[int, str]:
    """Return the nodes that the registry does not have, with that reason."""
    if context.policy.allow_unregistered_targets and not row.kind.has_two_ends:
        return {}
    nodes = ((index, row.plan.nodes[index]) for index in others)
    return {
        index: f"{node.name} at {node.address} is not a registered node"
        for index, node in nodes
        if node.name not in places
    }
