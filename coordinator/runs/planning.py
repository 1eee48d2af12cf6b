"""Turns what a person asks for into a frozen plan, or refuses before anything is enqueued."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.runs.nodes import also_claimed_by
from worker import __version__
from worker.model.errors import ConfigError
from worker.model.names import NodeName, is_of_shared_network, plain_ip
from worker.model.options import Options
from worker.model.plan import Plan, PlannedNode
from worker.model.probe import PROBES, Need, with_options
from worker.model.text import some
from worker.model.version import WIRE_VERSION
from worker.wire.node_record import Node, share_a_namespace, share_a_network

#: Smallest interval between echoes to one target: what ping(8) and fping allow without privilege.
MIN_INTERVAL_S = {"raw": 0.001, "datagram": 0.01}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """
    Which nodes take part; empty means every node that is alive.

    Attributes:
        nodes: Names that are sources as well as targets.
        sources: Names that are sources; overrides `nodes` for that side.
        targets: Names that are targets; overrides `nodes` for that side.
        labels: Only nodes that carry all of these.
        sample: Targets of each source, chosen again for each plan; None is all.
        family: Only nodes that are registered by an address of this version of IP, or by a host
            name, of which each source takes an address of it.
    """

    nodes: Sequence[str] = ()
    sources: Sequence[str] = ()
    targets: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    sample: int | None = None
    family: int | None = None


def make_plan(
    nodes: Sequence[Node],
    selection: Selection,
    probes: Sequence[str],
    options: Mapping[str, Options] | None = None,
) -> Plan:
    """
    Make the plan of a run.

    A node that is named is part of it even while it is not alive: its row then says so.

    Args:
        options: By probe; those of a probe that is not here are its defaults, and others are not
            looked at.

    Raises:
        ConfigError: An unknown probe or node, no node alive, one of another wire version or
            family that is named, no pair, or options that some source may not use.
    """
    known = {node.name: node for node in nodes}
    everyone = [
        n.name
        for n in nodes
        if n.alive
        and _labelled(n, selection.labels)
        and _speaks_ours(n)
        and is_of_family(n, selection.family)
    ]
    both = selection.nodes or everyone
    sources = _known(known, selection.sources or both, selection.labels)
    targets = _known(known, selection.targets or both, selection.labels)
    if not any(node.alive for node in nodes):
        raise ConfigError(_why_nobody(nodes))
    members = sorted({*sources, *targets})
    strangers = [known[name] for name in members if not _speaks_ours(known[name])]
    if not members:
        strangers = [node for node in nodes if node.alive and not _speaks_ours(node)]
    if strangers:
        raise ConfigError(_who_upgrades(strangers))
    for node in map(known.__getitem__, members):
        if not is_of_family(node, selection.family):
            raise ConfigError(
                f"node {node.name} is registered at {node.address}, which is no "
                f"IPv{selection.family} address; give it one with: ptzmesh worker "
                f"--name {node.name} --address ADDRESS"
            )
    if len(members) < 2 or not sources or not targets:
        raise ConfigError(_who_is_left(nodes, selection, sources, targets))
    chosen = with_options(probes, options)
    for name in sources:
        _check_intervals(known[name], chosen)
    index = {name: number for number, name in enumerate(members)}
    return Plan(
        nodes=_planned([known[name] for name in members], nodes),
        sources=tuple(index[name] for name in sources),
        targets=tuple(index[name] for name in targets),
        options=chosen,
        sample=selection.sample,
        seed="" if selection.sample is None else secrets.token_hex(4),
        family=selection.family,
    )


def _planned(members: Sequence[Node], nodes: Sequence[Node]) -> tuple[PlannedNode, ...]:
    """Freeze members; nodes that are none of them may claim their addresses, too."""
    claimed_by = also_claimed_by(nodes)
    return tuple(
        PlannedNode(
            name=node.name,
            address=node.address,
            accepts=node.accepts,
            links=tuple(sorted((link, c) for link, c in node.links.items() if c > 0)),
            claimed_by=claimed_by.get(node.name, ()),
        )
        for node in members
    )


def is_of_family(node: Node, family: int | None) -> bool:
    """Return whether a version of IP may measure a node; one with a name may be by both."""
    ip = plain_ip(node.address)
    return family is None or ip is None or ip.version == family


def _who_is_left(
    nodes: Sequence[Node], selection: Selection, sources: Sequence[str], targets: Sequence[str]
) -> str:
    """Say that what was chosen has no pair, and by what."""
    left = f"sources are {some(sources) or 'none'}, targets are {some(targets) or 'none'}"
    if selection.family is not None:
        left += f" at IPv{selection.family} addresses"
    if not selection.labels:
        return f"the plan has no pair: {left}; {_what_makes_a_pair(nodes, selection)}"
    asked = ", ".join(f"{key}={value}" for key, value in selection.labels.items())
    there = {f"{key}={value}" for node in nodes if node.alive for key, value in node.labels.items()}
    known = some(sorted(there), 12) or "none"
    return f"the plan has no pair: with label {asked}, {left}; labels of live nodes are {known}"


def _why_nobody(nodes: Sequence[Node]) -> str:
    """Say that no node is alive, and where to look: at those that were, or at another Redis."""
    where = "where some run, they use another Redis or database: ptzmesh nodes there"
    if nodes:
        gone = some([node.name for node in nodes])
        where = f"those that are known do not run ({gone}): ptzmesh doctor there says why"
    return f"no node is alive; start one with: ptzmesh worker --name NAME; {where}"


def _what_makes_a_pair(nodes: Sequence[Node], selection: Selection) -> str:
    """Say what is lacking: a choice of two, an address of that family, or nodes that are alive."""
    if selection.nodes or selection.sources or selection.targets:
        return "choose at least two different nodes"
    others = [n.name for n in nodes if n.alive and not is_of_family(n, selection.family)]
    if others:
        return (
            f"without such an address are {some(others)}: give them one with ptzmesh worker "
            f"--address, or leave -{selection.family} out"
        )
    silent = [node.name for node in nodes if not node.alive]
    gone = f", or those that do not run: {some(silent)}" if silent else ""
    return f"one node alone has no other: start another with ptzmesh worker{gone}"


def to_upgrade(nodes: Sequence[Node], plan: Plan, labels: Mapping[str, str]) -> str:
    """Say which live nodes a plan leaves out for their wire version; empty when it does none."""
    others = [n for n in _outside(nodes, plan) if n.alive and _labelled(n, labels)]
    return _who_upgrades([node for node in others if not _speaks_ours(node)])


def _speaks_ours(node: Node) -> bool:
    return node.wire == WIRE_VERSION


def _who_upgrades(nodes: Sequence[Node]) -> str:
    older = [_with_version(node) for node in nodes if node.wire < WIRE_VERSION]
    newer = [_with_version(node) for node in nodes if node.wire > WIRE_VERSION]
    ours = f"ptzmesh {__version__}, wire {WIRE_VERSION}"
    parts = [f"upgrade {', '.join(older[:12])}; here is {ours}"] if older else []
    parts += [f"upgrade {ours}, here; newer are {', '.join(newer[:12])}"] if newer else []
    return "; ".join(parts)


def _with_version(node: Node) -> str:
    return f"{node.name} (ptzmesh {node.version}, wire {node.wire})"


def of_other_family(nodes: Sequence[Node], plan: Plan, family: int | None) -> list[str]:
    """List the live nodes that a plan leaves out as their address is of another family."""
    others = _outside(nodes, plan)
    return [node.name for node in others if node.alive and not is_of_family(node, family)]


def left_out(nodes: Sequence[Node], plan: Plan) -> list[str]:
    """List the nodes that a plan lacks as they are silent; one that was stopped is not missed."""
    return [node.name for node in _outside(nodes, plan) if node.state == "silent"]


def _outside(nodes: Sequence[Node], plan: Plan) -> list[Node]:
    members = {node.name for node in plan.nodes}
    return [node for node in nodes if node.name not in members]


def asked(plan: Plan, nodes: Sequence[Node]) -> Callable[[int, int], bool]:
    """Return a function of two nodes of a plan: whether the first asks the other who it is."""
    known = {node.name: node for node in nodes}
    members = [known.get(node.name) for node in plan.nodes]
    claimed = [bool(node.claimed_by) for node in plan.nodes]
    # A name may lead anywhere.
    shared = [
        plain_ip(node.address) is None or is_of_shared_network(node.address) for node in plan.nodes
    ]

    def is_asked(performer: int, other: int) -> bool:
        own, record = members[performer], members[other]
        if record is None or (own is not None and share_a_namespace(own, record)):
            return False
        return claimed[other] or (shared[other] and not share_a_network(own, record))

    return is_asked


def registered(known: Mapping[NodeName, Node], name: str) -> Node:
    """
    Return a node by its name.

    Raises:
        ConfigError: There is no such node.
    """
    node = known.get(NodeName(name))
    if node is None:
        listed = some(sorted(known), 12) or "none in this Redis, or this database of it"
        raise ConfigError(f"node ({name[:80]!r}) is not registered; known nodes: {listed}")
    return node


def _known(
    known: Mapping[NodeName, Node], names: Sequence[str], labels: Mapping[str, str]
) -> list[NodeName]:
    chosen = [registered(known, name) for name in names]
    return sorted({node.name for node in chosen if _labelled(node, labels)})


def _labelled(node: Node, labels: Mapping[str, str]) -> bool:
    return all(node.labels.get(key) == value for key, value in labels.items())


def _check_intervals(node: Node, options: Mapping[str, Options]) -> None:
    least = MIN_INTERVAL_S.get(node.icmp, 0.0)
    for probe, given in options.items():
        interval_s = getattr(given, "interval_s", least)
        if PROBES[probe].need is Need.ICMP and interval_s < least:
            raise ConfigError(
                f"interval ({interval_s}) must be at least {least} s: node {node.name} pings "
                f"through a {node.icmp} socket; see docs/privileges.md"
            )
