"""What the nodes of a mesh are together: who claims one address, and what they send to Redis."""

from __future__ import annotations

from collections.abc import Iterable

from worker.model.errors import RedisUnavailable
from worker.model.names import NodeName, plain_ip
from worker.model.text import some
from worker.wire.node_record import Node


def claims(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """
    Return the addresses that live nodes of several network namespaces say they have → those nodes.

    Only one of them can answer there, whoever asks. Nodes of one namespace may share an address.
    """
    by_address: dict[str, list[Node]] = {}
    for node in nodes:
        ip = plain_ip(node.address)
        if node.alive and ip is not None:
            zone = node.address.partition("%")[1:]
            by_address.setdefault("".join((str(ip), *zone)), []).append(node)
    return {
        address: sorted(those, key=lambda node: node.name)
        for address, those in by_address.items()
        if len({_namespace(node) for node in those}) > 1
    }


def also_claimed_by(nodes: Iterable[Node]) -> dict[NodeName, tuple[NodeName, ...]]:
    """Return, by the name of a node whose address others claim, the names of those others."""
    return {
        node.name: tuple(n.name for n in those if _namespace(n) != _namespace(node))
        for those in claims(nodes).values()
        for node in those
    }


def in_dispute(address: str, those: Iterable[Node]) -> str:
    """Say who claims an address, in one line."""
    return f"{address} is claimed by {some(node.name for node in those)}"


def _namespace(node: Node) -> tuple[str, ...]:
    return (node.boot, node.netns) if node.boot and node.netns else (node.name,)


def commands_per_s(nodes: Iterable[Node]) -> float:
    """Return the commands a second that the nodes that are alive send to Redis, all together."""
    return sum(node.redis_commands_per_s or 0.0 for node in nodes if node.alive)


def check_pace(nodes: Iterable[Node], most_per_s: int) -> None:
    """Raise RedisUnavailable where nodes send more commands a second than they may."""
    rate = commands_per_s(nodes)
    if rate > most_per_s:
        raise RedisUnavailable(
            f"the nodes send {rate:,.0f} commands a second to Redis, over their {most_per_s:,}; "
            "wait for the open runs (ptzmesh runs), or: ptzmesh limits --commands-per-s N"
        )
