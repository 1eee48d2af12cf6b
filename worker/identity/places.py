"""
Where the nodes of a row are now: what the registry says when a pair is measured, not what the plan
froze when its run was started.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from worker.host.resolve import resolve
from worker.model.names import NodeName, plain_ip
from worker.wire.node_record import Record
from worker.wire.rows import Row

#: In a row of tests, which may take hours, a name that is older is looked up again before a test.
NAME_HOLDS_S = 15.0


@dataclass
class Moves:
    """
    Which nodes have moved since a row looked where they are.

    Attributes:
        known: Node → its address, as the row read it from the registry.
        family: 4 or 6: of names, only addresses of it; None is any.
        looked_at: When names were looked up, on the monotonic clock.
        pairs: Those that were left, as their other node is elsewhere by now.
    """

    known: Mapping[NodeName, str]
    family: int | None = None
    looked_at: float = field(default_factory=time.monotonic)
    pairs: list[tuple[int, int]] = field(default_factory=list)

    def left(
        self, name: NodeName, registered: str, pairs: Sequence[tuple[int, int]], literal: str
    ) -> bool:
        """
        Leave a node's pairs if it is no longer at `literal`; return whether it has moved.

        `registered` is the address that the registry has of it by now; empty when it has none.
        """
        address = self.known.get(name, "")
        moved = registered != address
        is_old = time.monotonic() - self.looked_at > NAME_HOLDS_S
        if not moved and plain_ip(address) is None and is_old:
            # A silent name server says nothing of where the node is.
            literals = resolve(address, self.family).literals
            moved = bool(literals) and literal not in literals
        self.pairs += pairs if moved else []
        return moved


def addresses_of(records: Mapping[NodeName, Record]) -> dict[NodeName, str]:
    """Return the address of each node that the registry has."""
    return {name: record.address for name, record in records.items()}


def at_present(row: Row, addresses: Mapping[NodeName, str]) -> Row:
    """Return a row with its nodes where they are now; one that is not among these stays."""
    nodes = tuple(
        replace(node, address=addresses.get(node.name, node.address)) for node in row.plan.nodes
    )
    return replace(row, plan=replace(row.plan, nodes=nodes))
