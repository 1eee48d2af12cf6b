"""
The frozen plan of a run: which sources measure which targets, with which probes and options.

Pure. A plan is written once, when the run starts, and never changes: a node that joins later is
not part of it, and one that leaves gets `source_lost` rows. Pairs are numbered
`source_index * N + target_index`, which is their bit in the run's done bitmap. What it costs is in
`cost`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import msgpack

from worker.model.errors import ConfigError, OtherWire, WireError
from worker.model.names import IpLiteral, NodeName, ip_literal, valid_address, valid_name
from worker.model.options import Options, ThroughputOptions, UdpOptions, whole, within
from worker.model.probe import PROBES, Probe, UnknownOptions, from_wire, to_wire, with_options
from worker.model.tournament import least_rounds, plays_first, preferred, sampled
from worker.model.version import WIRE_VERSION

#: A plan for 1,000 nodes packs to about 40 kB.
MAX_PLAN_BYTES = 4 * 1024 * 1024
MAX_NODES = 1000
MAX_PHASES = 16
#: Fields that are packed as they are.
_PACKED = ("sources", "targets", "sample", "seed", "family")


@dataclass(frozen=True, kw_only=True)
class PlannedNode:
    """
    A node as the plan froze it.

    Attributes:
        name: Unique in the mesh.
        address: Where others reach it.
        accepts: Others can connect to it; else it is the connecting side of every test.
        links: Shared links on its way, each with the tests that it carries at once.
        claimed_by: Other live nodes that say they have the same address.
    """

    name: NodeName
    address: str
    accepts: bool = True
    links: tuple[tuple[str, int], ...] = ()
    claimed_by: tuple[NodeName, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TargetNode(PlannedNode):
    """A node that is measured now, at an address that was looked up and judged; see `targets`."""

    address: IpLiteral

    def __post_init__(self) -> None:
        """
        Refuse a name.

        Raises:
            ValueError: The probes would have to look it up, and nobody would judge the answer.
        """
        ip_literal(self.address)


@dataclass(frozen=True, kw_only=True)
class Encounter:
    """
    The tests of one pair of nodes that one of them performs under one lease.

    Attributes:
        far: The other node's index; it listens.
        tests: Options of each test, in order, `reverse` and `bidir` as they have to be.
        pairs: (source, target) of every measurement that the tests make.
    """

    far: int
    tests: tuple[ThroughputOptions | UdpOptions, ...]
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    Ordered pairs × probes, with options.

    Attributes:
        nodes: Every node that is a source or a target.
        sources: Indices into `nodes`.
        targets: Indices into `nodes`; a node is never its own target.
        options: Of each probe that is run, by its name: one phase each, in order.
        sample: Targets of each source, and sources of each target; None is all.
        seed: Chooses which; another seed, other pairs.
        family: 4 or 6: the version of IP by which targets are measured, also those that have a host
            name or have moved; None takes of a name what a source has a route to, IPv4 first.
    """

    nodes: tuple[PlannedNode, ...]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    options: Mapping[str, Options] = field(default_factory=lambda: with_options(["ping"]))
    sample: int | None = None
    seed: str = ""
    family: int | None = None

    def __post_init__(self) -> None:
        """Refuse a plan without pairs, of unknown probes, or with indices out of range."""
        within("nodes", len(self.nodes), 1, MAX_NODES)
        if not self.options:
            raise ConfigError(f"the plan has no probe: choose some of {', '.join(PROBES)}")
        for probe, options in self.options.items():
            is_known = probe in PROBES and isinstance(options, PROBES[probe].options)
            if not is_known and not isinstance(options, UnknownOptions):
                raise ConfigError(f"probe ({probe}) must be one of: {', '.join(PROBES)}")
        if len({node.name for node in self.nodes}) != len(self.nodes):
            raise ConfigError("a node is named twice")
        for indices in (self.sources, self.targets):
            if len(set(indices)) != len(indices):
                raise ConfigError("a source or a target is named twice")
            for index in indices:
                within("node index", index, 0, len(self.nodes) - 1)
        if self.sample is not None:
            if set(self.sources) != set(self.targets):
                raise ConfigError("a sample is of a full mesh: every source must be a target")
            whole("sample", self.sample, 1, MAX_NODES)
            if self.sample > max(1, others := len(self.sources) - 1):
                raise ConfigError(
                    f"sample ({self.sample}) must be at most {others}, the others of a node"
                )
        if self.family not in (None, 4, 6) or isinstance(self.family, float):
            raise ConfigError(f"family ({self.family!r}) must be 4 or 6")
        if self.pair_count == 0:
            raise ConfigError("the plan has no pair: choose at least two different nodes")

    @cached_property
    def index_of(self) -> Mapping[str, int]:
        """The index of each node, by name."""
        return {node.name: index for index, node in enumerate(self.nodes)}

    def targets_of(self, source: int) -> Sequence[int]:
        """Return the targets of a source, in the plan's order."""
        if self.sample is not None:
            return self._sampled.get(source, ())
        return [t for t in self.targets if t != source] if source in self._ends[0] else ()

    def has_pair(self, source: int, target: int) -> bool:
        """Whether a pair is measured."""
        if self.sample is not None:
            return target in self.targets_of(source)
        return source != target and source in self._ends[0] and target in self._ends[1]

    @cached_property
    def _ends(self) -> tuple[frozenset[int], frozenset[int]]:
        return frozenset(self.sources), frozenset(self.targets)

    @cached_property
    def _sampled(self) -> dict[int, tuple[int, ...]]:
        return sampled(self.sources, self.sample or 0, self.seed)

    @property
    def probes(self) -> tuple[str, ...]:
        """The probes that are run, one phase each."""
        return tuple(self.options)

    def kind(self, probe: str) -> Probe:
        """Return what is known of a probe of this plan."""
        options = self.options[probe]
        return options.kind if isinstance(options, UnknownOptions) else PROBES[probe]

    def lacks(self, probe: str) -> str:
        """Return what is not known here of a probe of this plan; empty when all is."""
        options = self.options[probe]
        return options.lacks if isinstance(options, UnknownOptions) else ""

    def test(self, probe: str) -> ThroughputOptions | UdpOptions:
        """Return the options of a probe with two ends."""
        return cast("ThroughputOptions | UdpOptions", self.options[probe])

    def performer(self, probe: str, source: int, target: int) -> int:
        """
        Return the node that does a pair's measurement: the source, but for tests with two ends.

        There it is the end that connects: the target under `reverse`, one of the two under `bidir`,
        and always a node that others cannot connect to.
        """
        if not self.kind(probe).has_two_ends:
            return source
        options, count = self.test(probe), len(self.nodes)
        near, far = (target, source) if options.reverse else (source, target)
        if options.bidir and not plays_first(near, far, count):
            near, far = far, near
        return far if self.nodes[near].accepts and not self.nodes[far].accepts else near

    def pairs_of(self, probe: str, performer: int) -> list[tuple[int, int]]:
        """Return the pairs of a performer; a ping's are rotated, so that sources start apart."""
        if self.kind(probe).target:
            return [(performer, performer)]
        if self.kind(probe).has_two_ends:
            return [
                (s, t)
                for other in range(len(self.nodes))
                for s, t in ((performer, other), (other, performer))
                if self.has_pair(s, t) and self.performer(probe, s, t) == performer
            ]
        targets = sorted(self.targets_of(performer), key=lambda target: target < performer)
        return [(performer, target) for target in targets]

    def performers(self, probe: str) -> list[int]:
        """Return the nodes that do a phase's measurements: one sweep each, none without a pair."""
        if self.kind(probe).target:
            return sorted(self.sources)
        if not self.kind(probe).has_two_ends:
            return sorted(filter(self.targets_of, self.sources))
        return sorted({self.performer(probe, s, t) for s, t in self.node_pairs()})

    def encounters(self, probe: str, performer: int) -> list[Encounter]:
        """Return a performer's tests by the other node, in the order that keeps the mesh busy."""
        options, by_far = self.test(probe), dict[int, list[tuple[int, int]]]()
        for s, t in self.pairs_of(probe, performer):
            by_far.setdefault(t if s == performer else s, []).append((s, t))

        def tests(far: int) -> Iterator[ThroughputOptions | UdpOptions]:
            if options.bidir:
                yield options
                return
            for source, _ in by_far[far]:
                yield replace(options, reverse=source != performer)

        return [
            Encounter(far=far, tests=tuple(tests(far)), pairs=tuple(by_far[far]))
            for far in preferred(performer, len(self.nodes), list(by_far))
        ]

    def pairs(self, probe: str) -> Iterator[tuple[int, int]]:
        """Yield what a phase measures as pairs of indices: a source with itself is no node's."""
        if self.kind(probe).target:
            return ((s, s) for s in self.sources)
        return self.node_pairs()

    def node_pairs(self) -> Iterator[tuple[int, int]]:
        """Yield every ordered pair of nodes as indices."""
        return ((s, t) for s in self.sources for t in self.targets_of(s))

    def count(self, probe: str) -> int:
        """Count the measurements of one phase."""
        return len(self.sources) if self.kind(probe).target else self.pair_count

    @property
    def pair_count(self) -> int:
        """Pairs in one phase."""
        if self.sample is not None:
            return len(self.sources) * min(self.sample, len(self.sources) - 1)
        return len(self.sources) * len(self.targets) - len(self._ends[0] & self._ends[1])

    def bit(self, source: int, target: int) -> int:
        """Return the pair's position in the done bitmap."""
        return source * len(self.nodes) + target

    @property
    def start_spread_s(self) -> float:
        """Seconds over which sources start, so that a mesh does not ping in lockstep."""
        return min(0.5, 0.02 * len(self.sources))

    def start_offset_s(self, source: int) -> float:
        """Return the source's own share of the start spread, in seconds."""
        return self.start_spread_s * self.sources.index(source) / len(self.sources)

    def rounds(self, probe: str) -> int:
        """Return how many tests of a phase follow one another at least."""
        return self._rounds[self.test(probe).bidir]

    @cached_property
    def _rounds(self) -> Mapping[bool, int]:
        """Tests that follow one another at least; one for both directions of a pair, or two."""
        links = {i: dict(node.links) for i, node in enumerate(self.nodes) if node.links}
        kinds = {self.test(probe).bidir for probe in self.probes if self.kind(probe).has_two_ends}
        return {both: least_rounds(self._tests(bidir=both), links) for both in kinds}

    def _tests(self, *, bidir: bool) -> Iterator[tuple[int, int]]:
        """Yield the two nodes of each test; two of which none accepts connections make none."""
        for s, t in self.node_pairs():
            is_other_half = bidir and s > t and self.has_pair(t, s)
            if not is_other_half and (self.nodes[s].accepts or self.nodes[t].accepts):
                yield s, t

    def packed(self) -> bytes:
        """Return the msgpack form, with the wire version."""
        fields = {name: getattr(self, name) for name in _PACKED}
        nodes = [asdict(node) for node in self.nodes]
        phases = [to_wire(self.kind(probe), options) for probe, options in self.options.items()]
        plan = {"wire": WIRE_VERSION, "nodes": nodes, "phases": phases, **fields}
        return bytes(msgpack.packb(plan))

    @property
    def digest(self) -> str:
        """The identity under which two people who ask for the same plan join one run."""
        return hashlib.sha256(self.packed()).hexdigest()[:16]


def unpack_plan(packed: bytes, *, versions: Container[int] = (WIRE_VERSION,)) -> Plan:
    """
    Read a plan back.

    Args:
        packed: What `Plan.packed` returned.
        versions: Wire versions that will do: to look at a run is less than to carry it out.

    Raises:
        OtherWire: Of another wire version.
        WireError: Not a plan: too large, wrong types, unknown or missing fields.
    """
    if len(packed) > MAX_PLAN_BYTES:
        raise WireError(f"plan ({len(packed)} bytes) is over {MAX_PLAN_BYTES}")
    try:
        return _plan_from(msgpack.unpackb(packed), versions)
    except (
        ValueError, TypeError, KeyError, AttributeError, RecursionError, ConfigError,
    ) as exc:  # fmt: skip
        raise WireError(f"not a plan: {exc}") from exc


def _plan_from(raw: Mapping[str, Any], versions: Container[int]) -> Plan:
    if raw.get("wire") not in versions:
        raise OtherWire("the run", raw.get("wire"), WIRE_VERSION)
    return Plan(
        nodes=tuple(_node(n) for n in raw["nodes"]),
        sources=_indices(raw["sources"]),
        targets=_indices(raw["targets"]),
        options=_options(raw),
        sample=None if raw["sample"] is None else _indices([raw["sample"]])[0],
        seed=_text(raw, "seed"),
        family=raw.get("family"),
    )


def _options(raw: Mapping[str, Any]) -> dict[str, Options]:
    """Read the options of what is run; in wire version 1 each probe had a field of its own."""
    if raw["wire"] == 1:
        return {probe: PROBES[probe].options(**raw[probe]) for probe in raw["probes"]}
    phases = raw["phases"]
    within("phases", len(phases), 1, MAX_PHASES)
    options = dict(map(from_wire, phases))
    if len(options) != len(phases):
        raise TypeError("a probe is named twice")
    return options


def _node(raw: Mapping[str, Any]) -> PlannedNode:
    accepts = raw["accepts"]
    if not isinstance(accepts, bool):
        raise TypeError("accepts is not true or false")
    return PlannedNode(
        name=valid_name(_text(raw, "name")),
        address=valid_address(_text(raw, "address")),
        accepts=accepts,
        links=tuple((valid_name(link), _capacity(count)) for link, count in raw.get("links", ())),
        claimed_by=tuple(map(valid_name, raw.get("claimed_by", ()))),
    )


def _capacity(value: object) -> int:
    if type(value) is not int or value < 1:
        raise TypeError("a link's capacity is no whole number above 0")
    return value


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = raw[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not text")
    return value


def _indices(raw: Sequence[Any]) -> tuple[int, ...]:
    if not all(type(index) is int for index in raw):
        raise TypeError("an index is not a whole number")
    return tuple(raw)
