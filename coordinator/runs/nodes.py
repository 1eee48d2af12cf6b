"""The registry: which nodes there are, and which of them are alive."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import redis

from worker.model.errors import ConfigError, RedisUnavailable
from worker.model.fields import number_or_none
from worker.model.names import NAME, plain_ip, valid_address
from worker.model.text import one_line, some
from worker.model.version import WIRE_VERSION
from worker.wire import keyspace, node_record, scripts
from worker.wire.registry import SITE

#: Longest number that a record has; what Redis counts in fits.
MAX_DIGITS = 18


@dataclass(frozen=True, kw_only=True)
class Node:
    """
    A registered node.

    Attributes:
        name: Unique in the mesh.
        address: Where other nodes reach it.
        labels: What its operator says of it.
        version: ptzmesh's version there.
        wire: Its wire version; the first one wrote none.
        icmp: `raw`, `datagram` or `none`: how it may ping.
        iperf3: Version of its iperf3; empty when it has none.
        iperf3_fault: Why it has none, and what to do.
        accepts: Others can connect to it.
        links: Shared links on its way → tests that each carries at once.
        ports: First and last port on which it listens for tests; None when its record lacks them.
        bytes_per_day: Its budget for tests; None is no limit.
        settings_fault: Why what its settings file says now is not followed; empty when it is.
        outbox_bytes: Results that wait on its disk, as of its last heartbeat.
        redis_commands_per_s: Commands that its processes sent to Redis between its last two
            heartbeats, a second; None before the second.
        clock_offset_ms: Its clock minus Redis', as its last heartbeat estimated it.
        clock_offset_uncertainty_ms: By how much that may be wrong, to either side.
        boot: Its machine's boot id; empty when it is not known, as the next two.
        netns: Its network namespace there.
        gateway: MAC address of its default router.
        seen_s: Seconds since its last heartbeat, on Redis' clock.
        stopped: It has said goodbye.
        alive: Its last heartbeat is recent, and it has not said goodbye.
    """

    name: str
    address: str
    labels: Mapping[str, str]
    version: str
    wire: int = WIRE_VERSION
    icmp: str
    iperf3: str
    iperf3_fault: str = ""
    accepts: bool
    links: Mapping[str, int]
    ports: tuple[int, int] | None = None
    bytes_per_day: int | None
    settings_fault: str = ""
    outbox_bytes: int = 0
    redis_commands_per_s: float | None = None
    clock_offset_ms: float | None
    clock_offset_uncertainty_ms: float | None = None
    boot: str = ""
    netns: str = ""
    gateway: str = ""
    seen_s: float
    stopped: bool = False
    alive: bool

    @property
    def state(self) -> str:
        """Say in a word whether it takes part: `alive`, `stopped` on purpose, or `silent`."""
        if self.stopped:
            return "stopped"
        return "alive" if self.alive else "silent"

    @property
    def site(self) -> str:
        """Its label of that name: nodes that have it in common say that they are on one network."""
        return self.labels.get(SITE, "")

    def to_json(self) -> dict[str, Any]:
        """Give one JSON-ready object with the attributes' names, and `state`."""
        texts = {"labels": dict(self.labels), "links": dict(self.links)}
        return {**vars(self), "state": self.state, **texts}


def read_nodes(connection: redis.Redis) -> list[Node]:
    """Give all registered nodes, by name; one whose name or address is none is left out."""
    now = scripts.redis_seconds(connection)
    beats = connection.zrange(keyspace.NODES, 0, -1, withscores=True)
    seen = [
        (text, score)
        for name, score in cast("list[tuple[bytes, float]]", beats)
        if NAME.fullmatch(text := name.decode(errors="replace"))
    ]
    pipeline = connection.pipeline(transaction=False)
    for name, _ in seen:
        pipeline.hgetall(keyspace.node_key(name))
    records = pipeline.execute(raise_on_error=False)
    nodes = [
        _node(name, record, now - score)
        for (name, score), record in zip(seen, records, strict=True)
        if record and isinstance(record, dict)
    ]
    return sorted((node for node in nodes if node.address), key=lambda node: node.name)


def claims(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """
    Give the addresses that live nodes of several network namespaces say they have → those nodes.

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


def also_claimed_by(nodes: Iterable[Node]) -> dict[str, tuple[str, ...]]:
    """Give, by the name of a node whose address others claim, the names of those others."""
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
    """Give the commands a second that the nodes that are alive send to Redis, all together."""
    return sum(node.redis_commands_per_s or 0.0 for node in nodes if node.alive)


def check_pace(nodes: Iterable[Node], most_per_s: int) -> None:
    """
    Refuse to add work to a mesh that is at its share of the Redis.

    Raises:
        RedisUnavailable: The nodes send more commands a second than they may.
    """
    rate = commands_per_s(nodes)
    if rate > most_per_s:
        raise RedisUnavailable(
            f"the nodes send {rate:,.0f} commands a second to Redis, over their {most_per_s:,}; "
            "wait for the open runs (ptzmesh runs), or: ptzmesh limits --commands-per-s N"
        )


def _node(name: str, record: Mapping[bytes, bytes], seen_s: float) -> Node:
    text = {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in record.items()
    }
    stopped = bool(text.get("stopped"))
    links = {link: _count(n) for link, n in _texts(text.get("links", "{}")).items()}
    return Node(
        name=name,
        address=_address(text.get("address", "")),
        labels=_texts(text.get("labels", "{}")),
        version=one_line(text.get("version", "")),
        wire=_count(text.get("wire", "1")) or 0,
        icmp=one_line(text.get("icmp", "none")),
        iperf3=one_line(text.get("iperf3", "")),
        iperf3_fault=one_line(text.get("iperf3_fault", "")),
        accepts=text.get("accepts", "1") == "1",
        links={link: n for link, n in links.items() if n is not None},
        ports=_ports(text.get("ports", "")),
        bytes_per_day=_count(text.get("bytes_per_day", "")),
        settings_fault=one_line(text.get("settings_fault", "")),
        outbox_bytes=_count(text.get("outbox", "")) or 0,
        redis_commands_per_s=number_or_none(text.get("redis_commands_per_s", "")),
        clock_offset_ms=number_or_none(text.get("clock_offset_ms", "")),
        clock_offset_uncertainty_ms=number_or_none(text.get("clock_offset_uncertainty_ms", "")),
        boot=one_line(text.get("boot", "")),
        netns=one_line(text.get("netns", "")),
        gateway=one_line(text.get("gateway", "")),
        seen_s=seen_s,
        stopped=stopped,
        alive=seen_s <= node_record.ALIVE_S and not stopped,
    )


def _address(text: str) -> str:
    """Give an address; empty when it is none, so that nothing is measured there."""
    try:
        return valid_address(text)
    except ConfigError:
        return ""


def _count(text: str) -> int | None:
    return int(text) if len(text) <= MAX_DIGITS and text.isdecimal() else None


def _ports(text: str) -> tuple[int, int] | None:
    first, last = (_count(part) for part in (text + "-").split("-")[:2])
    return None if first is None or last is None else (first, last)


def _texts(packed: str) -> dict[str, str]:
    """Read a JSON object as text by text; what is none is empty."""
    try:
        found = json.loads(packed)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {one_line(str(key)): one_line(str(value)) for key, value in found.items()}
