"""
Where the nodes of a row are now: what the registry says when a pair is measured, not what the plan
froze when its run was started.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import redis

from worker.host.resolve import resolve
from worker.model.errors import ConfigError
from worker.model.names import plain_ip, valid_address
from worker.wire import keyspace, scripts
from worker.wire.registry import Record
from worker.wire.rows import Row

#: Looked up in one script, which holds every locker for tens of microseconds.
ADDRESSES_AT_A_TIME = 64
#: In a row of tests, which may take hours, a name that is older is looked up again before a test.
NAME_HOLDS_S = 15.0


@dataclass
class Moves:
    """
    Notices which nodes have moved since a row looked where they are.

    Attributes:
        connection: To Redis.
        known: Node → its address, as the row read it from the registry.
        family: 4 or 6: of names, only addresses of it; None is any.
        looked_at: When names were looked up, on the monotonic clock.
        pairs: Those that were left, as their other node is elsewhere by now.
    """

    connection: redis.Redis
    known: Mapping[str, str]
    family: int | None = None
    looked_at: float = field(default_factory=time.monotonic)
    pairs: list[tuple[int, int]] = field(default_factory=list)

    def left(self, name: str, pairs: Sequence[tuple[int, int]], literal: str) -> bool:
        """
        Leave a node's pairs if it has moved; say whether it has.

        Args:
            name: The node.
            pairs: Those that would be measured now.
            literal: Where it would be measured; of a name, what it led to when the row began.
        """
        address = self.known.get(name, "")
        moved = self.is_registered_elsewhere(name)
        if not moved and plain_ip(address) is None and self._is_long_ago():
            # A silent name server says nothing of where the node is.
            found = resolve(address, self.family).literals
            moved = bool(found) and literal not in found
        self.pairs += pairs if moved else []
        return moved

    def is_registered_elsewhere(self, name: str) -> bool:
        """Tell whether the registry has another address of a node by now, or none."""
        return registered(self.connection, [name]).get(name) != self.known.get(name)

    def _is_long_ago(self) -> bool:
        return time.monotonic() - self.looked_at > NAME_HOLDS_S


def registered(connection: redis.Redis, names: Collection[str]) -> dict[str, str]:
    """Give the address of each node that the registry has; one that is none is left out."""
    listed, look_up = list(names), scripts.script(connection, "addresses")
    found: dict[str, str] = {}
    for start in range(0, len(listed), ADDRESSES_AT_A_TIME):
        some = listed[start : start + ADDRESSES_AT_A_TIME]
        answer = look_up([keyspace.node_key(name) for name in some], [])
        found |= {
            name: text
            for name, raw in zip(some, answer, strict=True)
            if raw is not None and (text := _address(raw))
        }
    return found


def addresses_of(records: Mapping[str, Record]) -> dict[str, str]:
    """Give the address of each node from what the registry has of it, as `registered` does."""
    return {name: text for name, record in records.items() if (text := _address(record.address))}


def at_present(row: Row, addresses: Mapping[str, str]) -> Row:
    """Give a row with its nodes where they are now; one that is not among these stays."""
    nodes = tuple(
        replace(node, address=addresses.get(node.name, node.address)) for node in row.plan.nodes
    )
    return replace(row, plan=replace(row.plan, nodes=nodes))


def _address(raw: bytes) -> str:
    try:
        return valid_address(raw.decode(errors="replace"))
    except ConfigError:
        return ""
