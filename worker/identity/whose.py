"""Parts a row's pairs by whose the other node's address is: those to measure, and findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from worker.identity.answering import Port
from worker.identity.context import NodeContext
from worker.identity.identity import Allowance, ShouldStop, Target, Verdict, identify
from worker.identity.proxies import keep_straight
from worker.identity.row_targets import Pair
from worker.model.measurement import Measurement, Outcome
from worker.model.names import IP, NodeName, plain_ip
from worker.model.plan import PlannedNode, TargetNode
from worker.wire.node_record import Record, share_a_namespace
from worker.wire.rows import Row


@dataclass(frozen=True)
class Parted:
    """
    The pairs of a row.

    Attributes:
        ready: Those that are measured, each with its other node.
        findings: Records of the others.
        unverified: Names of nodes that are measured and may be somebody else.
    """

    ready: Mapping[Pair, TargetNode]
    findings: Sequence[Measurement]
    unverified: frozenset[NodeName]

    def marked(self, measurements: Iterable[Measurement]) -> Iterator[Measurement]:
        """Mark the numbers that may be of another machine than the record says."""
        for each in measurements:
            has_number = each.latency_ms is not None or each.throughput_mbps is not None
            if has_number and not self.unverified.isdisjoint((each.source, each.target)):
                yield replace(each, detail=replace(each.detail, unverified="yes"))
            else:
                yield each


@dataclass(frozen=True, kw_only=True)
class Whose:
    """
    Whether the right machine would be measured of a row's pairs.

    Attributes:
        context: The node that measures.
        row: What is measured.
        records: What the registry has of `names_to_look_up`, and of others at one's new address.
        allowed: How many others it may still ask who they are.
        at: Node → the address that a name of it led to, as far as that is known by now.
    """

    context: NodeContext
    row: Row
    records: Mapping[NodeName, Record]
    allowed: Allowance
    at: dict[NodeName, IP | None] = field(default_factory=dict)

    def part(self, ready: Mapping[Pair, TargetNode], should_stop: ShouldStop) -> Parted:
        """Part pairs, each given with its other node at the address that will be measured."""
        self.at.update((node.name, plain_ip(node.address)) for node in ready.values())
        targets = list({node.name: self._target(node) for node in ready.values()}.values())
        use_ports = partial(self._use_ports, ready, should_stop)
        verdicts = identify(
            self.context, targets, self.records, self.allowed, should_stop, use_ports
        )
        if should_stop():  # there may have been no time to answer: the row is handed back
            return Parted(ready={}, findings=(), unverified=frozenset())
        bad = {pair for pair in ready if verdicts[ready[pair].name].outcome is not Outcome.OK}
        return Parted(
            ready={pair: node for pair, node in ready.items() if pair not in bad},
            findings=[
                _finding(self.row, pair, node, verdicts[node.name])
                for pair, node in ready.items()
                if pair in bad
            ],
            unverified=frozenset(name for name, verdict in verdicts.items() if verdict.unverified),
        )

    def _use_ports(
        self,
        ready: Mapping[Pair, TargetNode],
        should_stop: ShouldStop,
        ports: Mapping[NodeName, Port],
    ) -> None:
        """Find who gets our handshakes, where the run has tests over TCP that will ask for it."""
        plan, row = self.row.plan, self.row
        if any(plan.kind(probe).is_over_tcp for probe in plan.probes[row.phase :]):
            addresses = {node.name: node.address for node in ready.values()}
            keep_straight(self.context, self.records, addresses, should_stop, ports)

    def _target(self, node: PlannedNode) -> Target:
        """
        Find which others have a node's address now, of those whose records were looked up.

        The measuring node may be among them: behind the router to which others say that address.
        """
        records, ip = self.records, plain_ip(node.address)
        own = records.get(node.name)
        claimed_by = [
            name
            for name, record in records.items()
            if name != node.name
            and record.alive
            and ip == (self.at[name] if name in self.at else plain_ip(record.address))
        ]
        rivals = [n for n in claimed_by if not (own and share_a_namespace(own, records[n]))]
        return Target(
            name=node.name,
            address=node.address,
            is_there=own is not None and own.accepts,
            claimed_by=rivals,
            also_there=[name for name in rivals if records[name].accepts],
        )


def names_to_look_up(row: Row, others: Iterable[int]) -> list[NodeName]:
    """Return the nodes that may answer, by whose records: the row's own, these others, rivals."""
    wanted = {row.name: None}
    for node in (row.plan.nodes[index] for index in others):
        wanted |= dict.fromkeys((node.name, *node.claimed_by))
    return list(wanted)


def _finding(row: Row, pair: Pair, node: PlannedNode, verdict: Verdict) -> Measurement:
    finding = row.finding(pair, verdict.outcome, verdict.error)
    # Where the row's own node is the target, its address is not the one that was judged.
    return replace(finding, address=node.address) if finding.target == node.name else finding
