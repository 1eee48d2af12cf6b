"""The registry: which nodes there are, and which of them are alive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import redis

from worker import keyspace, wire


@dataclass(frozen=True, kw_only=True)
class Node:
    """
    A registered node.

    Attributes:
        name: Unique in the mesh.
        address: Where other nodes reach it.
        labels: What its operator says of it.
        version: ptzmesh's version there.
        icmp: `raw`, `datagram` or `none`: how it may ping.
        iperf3: Version of its iperf3; empty when it has none.
        accepts: Others can connect to it.
        links: Shared links on its way → tests that each carries at once.
        bytes_per_day: Its budget for tests; None is no limit.
        clock_offset_ms: Its clock minus Redis', as its last heartbeat estimated it.
        seen_s: Seconds since its last heartbeat, on Redis' clock.
        alive: Its last heartbeat is recent, and it has not said goodbye.
    """

    name: str
    address: str
    labels: Mapping[str, str]
    version: str
    icmp: str
    iperf3: str
    accepts: bool
    links: Mapping[str, int]
    bytes_per_day: int | None
    clock_offset_ms: float | None
    seen_s: float
    alive: bool

    def to_json(self) -> dict[str, Any]:
        """Give one JSON-ready object with the attributes' names."""
        return {**vars(self), "labels": dict(self.labels), "links": dict(self.links)}


def read_nodes(connection: redis.Redis) -> list[Node]:
    """Give all registered nodes, by name."""
    now = wire.redis_seconds(connection)
    beats = connection.zrange(keyspace.NODES, 0, -1, withscores=True)
    seen = cast("list[tuple[bytes, float]]", beats)
    pipeline = connection.pipeline(transaction=False)
    for name, _ in seen:
        pipeline.hgetall(keyspace.node_key(name.decode()))
    records = pipeline.execute()
    nodes = [
        _node(name.decode(), record, now - score)
        for (name, score), record in zip(seen, records, strict=True)
        if record
    ]
    return sorted(nodes, key=lambda node: node.name)


def _node(name: str, record: Mapping[bytes, bytes], seen_s: float) -> Node:
    text = {key.decode(): value.decode(errors="replace") for key, value in record.items()}
    offset = text.get("clock_offset_ms")
    return Node(
        name=name,
        address=text.get("address", ""),
        labels=_texts(text.get("labels", "{}")),
        version=text.get("version", ""),
        icmp=text.get("icmp", "none"),
        iperf3=text.get("iperf3", ""),
        accepts=text.get("accepts", "1") == "1",
        links={name: int(n) for name, n in _texts(text.get("links", "{}")).items() if n.isdigit()},
        bytes_per_day=int(budget) if (budget := text.get("bytes_per_day", "")).isdigit() else None,
        clock_offset_ms=float(offset) if offset else None,
        seen_s=seen_s,
        alive=seen_s <= wire.ALIVE_S and not text.get("stopped"),
    )


def _texts(packed: str) -> dict[str, str]:
    """Read a JSON object as text by text; what is none is empty."""
    try:
        found = json.loads(packed)
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
