"""
The frozen plan of a run: which sources measure which targets, with which probes and options.

Pure. A plan is written once, when the run starts, and never changes: a node that joins later is
not part of it, and one that leaves gets `source_lost` rows. Pairs are numbered
`source_index * N + target_index`, which is their bit in the run's done bitmap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import msgpack

from worker.errors import ConfigError, WireError
from worker.options import PingOptions, within

PROBES = ("ping",)

#: A plan for 1,000 nodes packs to about 40 kB.
MAX_PLAN_BYTES = 4 * 1024 * 1024
MAX_NODES = 1000


@dataclass(frozen=True, kw_only=True)
class PlannedNode:
    """A node as the plan froze it."""

    name: str
    address: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    Ordered pairs × probes, with options.

    Attributes:
        nodes: Every node that is a source or a target.
        sources: Indices into `nodes`.
        targets: Indices into `nodes`; a node is never its own target.
        probes: One phase each, in order.
        ping: Options of the `ping` probe.
    """

    nodes: tuple[PlannedNode, ...]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    probes: tuple[str, ...] = ("ping",)
    ping: PingOptions = field(default_factory=PingOptions)

    def __post_init__(self) -> None:
        """Refuse a plan without pairs, of unknown probes, or with indices out of range."""
        within("nodes", len(self.nodes), 1, MAX_NODES)
        for probe in self.probes:
            if probe not in PROBES:
                raise ConfigError(f"probe ({probe}) must be one of: {', '.join(PROBES)}")
        for index in (*self.sources, *self.targets):
            within("node index", index, 0, len(self.nodes) - 1)
        if self.pair_count == 0:
            raise ConfigError("the plan has no pair: choose at least two different nodes")

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return {node.name: index for index, node in enumerate(self.nodes)}

    def index_of(self, name: str) -> int:
        """Give a node's index; KeyError when it is not part of the plan."""
        return self._index_of[name]

    def targets_of(self, source: int) -> list[int]:
        """Give the target indices of a source, rotated so that sources start apart."""
        after = [t for t in self.targets if t > source]
        return after + [t for t in self.targets if t < source]

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield every ordered pair of a phase as indices."""
        return ((s, t) for s in self.sources for t in self.targets if s != t)

    @property
    def pair_count(self) -> int:
        """Pairs in one phase."""
        both = len(set(self.sources) & set(self.targets))
        return len(self.sources) * len(self.targets) - both

    def bit(self, source: int, target: int) -> int:
        """Give the pair's place in the done bitmap."""
        return source * len(self.nodes) + target

    @property
    def start_spread_s(self) -> float:
        """Seconds over which sources start, so that a mesh does not ping in lockstep."""
        return min(0.5, 0.02 * len(self.sources))

    def start_offset_s(self, source: int) -> float:
        """Give the source's own share of the start spread, in seconds."""
        return self.start_spread_s * self.sources.index(source) / len(self.sources)

    def sweep_seconds(self, probe: str) -> float:
        """Longest time a sweep of `probe` takes, once started, in seconds."""
        return self.ping.seconds + self.start_spread_s

    def bytes_per_node(self) -> dict[str, int]:
        """
        Give the bytes that each node sends and receives in the run, at the IP layer, worst case.

        An echo is 20 + 8 + size bytes, and so is its reply (IPv6: 40 + 8 + size).
        """
        spent = dict.fromkeys((node.name for node in self.nodes), 0)
        for source, target in self.pairs():
            header = 48 if ":" in self.nodes[target].address else 28
            cost = 2 * self.ping.count * (header + self.ping.size_bytes)
            spent[self.nodes[source].name] += cost
            spent[self.nodes[target].name] += cost
        return spent

    def packed(self) -> bytes:
        """Give the msgpack form."""
        return bytes(msgpack.packb(asdict(self)))

    @property
    def digest(self) -> str:
        """Give the identity under which two people who ask for the same plan join one run."""
        return hashlib.sha256(self.packed()).hexdigest()[:16]


def unpack_plan(packed: bytes) -> Plan:
    """
    Read a plan back.

    Raises:
        WireError: Not a plan: too large, wrong types, unknown or missing fields.
    """
    if len(packed) > MAX_PLAN_BYTES:
        raise WireError(f"plan ({len(packed)} bytes) is over {MAX_PLAN_BYTES}")
    try:
        return _plan_from(msgpack.unpackb(packed))
    except (ValueError, TypeError, KeyError, AttributeError, ConfigError) as exc:
        raise WireError(f"not a plan: {exc}") from exc


def _plan_from(raw: Mapping[str, Any]) -> Plan:
    return Plan(
        nodes=tuple(
            PlannedNode(name=_text(n, "name"), address=_text(n, "address")) for n in raw["nodes"]
        ),
        sources=_indices(raw["sources"]),
        targets=_indices(raw["targets"]),
        probes=tuple(str(probe) for probe in raw["probes"]),
        ping=PingOptions(**raw["ping"]),
    )


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = raw[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not text")
    return value


def _indices(raw: Sequence[Any]) -> tuple[int, ...]:
    if not all(type(index) is int for index in raw):
        raise TypeError("an index is not a whole number")
    return tuple(raw)
