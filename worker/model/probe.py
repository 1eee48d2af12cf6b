"""
The probes: one row each says what is asked of it, of whom, what it needs, and what it shows.

Pure. Phases follow the order of the rows: a loaded link spoils round-trip times. How long a probe
takes and which bytes it moves is in the class of its options; how a node carries it out, in
`worker.node.measures`.

A plan says of each of its probes what a version that does not know it must: so an older node, or a
reader of a run, counts its pairs and carries the run on, and leaves only that probe out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

import msgpack

from worker.model.detail import (
    Detail,
    PingStatistics,
    RedisStatistics,
    TcpStatistics,
    TransferStatistics,
)
from worker.model.errors import ConfigError
from worker.model.names import REDIS_TARGET, valid_name
from worker.model.options import (
    Options,
    PingOptions,
    RedisOptions,
    TcpOptions,
    ThroughputOptions,
    UdpOptions,
    within,
)

#: Names of probes and of their options, which stand in keys of Redis and on terminals.
NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
#: No options take more, packed; and no probe longer for one sweep.
MAX_OPTIONS_BYTES, MAX_SECONDS = 4096, 1e7


class Need(str, Enum):
    """What a probe needs of a node, by the field of the node's record that has it."""

    ICMP = "icmp"
    IPERF3 = "iperf3"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """
    One probe.

    Attributes:
        name: Unique, as people ask for it.
        options: The class of its options.
        has_two_ends: It saturates a link, and holds both ends of a pair under a lease.
        target: What each source measures once, instead of the other nodes; empty where it is these.
        is_over_tcp: A proxy may answer for the target, and is looked for.
        need: What it needs of the node that measures.
        figures: Names of `coordinator.results.figures` that say most, the headline first.
        statistics: The class of what its records have beside the headline numbers.
        lacks: Numbers that it has not, though records like its own have them.
    """

    name: str
    options: type[Any]
    has_two_ends: bool = False
    target: str = ""
    is_over_tcp: bool = False
    need: Need | None = None
    figures: tuple[str, ...] = ("mean",)
    statistics: type[Detail] = Detail
    lacks: tuple[str, ...] = ()

    def fills(self, number: str) -> bool:
        """Whether its records have a number, by the name of the CSV column."""
        own = (one.name for one in fields(self.statistics))
        return number in {*self.statistics.HEADLINE, *own} - {*self.lacks}


PROBES: Mapping[str, Probe] = {
    probe.name: probe
    for probe in (
        Probe(name="ping", options=PingOptions, need=Need.ICMP, statistics=PingStatistics),
        Probe(name="tcp", options=TcpOptions, is_over_tcp=True, statistics=TcpStatistics),
        Probe(name="redis", options=RedisOptions, target=REDIS_TARGET, statistics=RedisStatistics),
        Probe(
            name="throughput",
            options=ThroughputOptions,
            has_two_ends=True,
            is_over_tcp=True,
            need=Need.IPERF3,
            figures=("throughput",),
            statistics=TransferStatistics,
            lacks=(
                *("packet_loss_pct", "sent", "received"),
                *("jitter_rfc3550_ms", "out_of_order"),
            ),
        ),
        Probe(
            name="udp",
            options=UdpOptions,
            has_two_ends=True,
            need=Need.IPERF3,
            figures=("throughput", "jitter"),
            statistics=TransferStatistics,
            lacks=("retransmits",),
        ),
    )
}


def with_options(
    probes: Iterable[str], options: Mapping[str, Options] | None = None
) -> dict[str, Options]:
    """
    Return the options of these probes in the order of their phases, by default each one's own.

    Raises:
        ConfigError: There is no such probe.
    """
    given, asked = options or {}, set(probes)
    for name in asked - PROBES.keys():
        raise ConfigError(f"probe ({name}) must be one of: {', '.join(PROBES)}")
    return {name: given.get(name) or PROBES[name].options() for name in PROBES if name in asked}


def name_of(options: Options) -> str:
    """Return the name of the probe that these are options of."""
    return next(probe.name for probe in PROBES.values() if probe.options is type(options))


@dataclass(frozen=True, kw_only=True)
class UnknownOptions(Options):
    """
    The options of a probe that a newer ptzmesh planned, and this one cannot carry out.

    Attributes:
        kind: The probe, as far as it is known here.
        lacks: What is not known here, such as `probe mtu` or `option ttl of ping`.
        packed: The options as they came, in msgpack.
        takes_s: What the plan says that it takes.
        reverse: As of tests with two ends.
        bidir: Likewise.
    """

    kind: Probe
    lacks: str
    packed: bytes
    takes_s: float
    reverse: bool = False
    bidir: bool = False

    @property
    def seconds(self) -> float:
        """Time that it takes, as the plan says."""
        return self.takes_s

    def pair_bytes(self, ip_header_bytes: int) -> None:
        """Nobody here knows."""


def to_wire(kind: Probe, options: Options) -> dict[str, Any]:
    """
    Describe a phase as a plan has it.

    What is off, and is off by default, is left out: so a new option that nobody asks for, which is
    off by default, does not keep an older node from measuring.
    """
    if isinstance(options, UnknownOptions):
        given = msgpack.unpackb(options.packed)
    else:
        given = {
            field.name: value
            for field in fields(kind.options)
            if (value := getattr(options, field.name)) is not field.default
            or (value is not None and value is not False)
        }
    return {
        "probe": kind.name,
        "ends": 2 if kind.has_two_ends else 1,
        "target": kind.target,
        "seconds": options.seconds,
        "options": given,
    }


def from_wire(raw: Mapping[str, Any]) -> tuple[str, Options]:
    """
    Read a phase of a plan: the probe's name, and its options.

    Raises:
        ConfigError, KeyError, TypeError, ValueError: It is damaged, or out of bounds.
    """
    name, given = raw["probe"], raw["options"]
    if not all(isinstance(text, str) and NAME.fullmatch(text) for text in (name, *given)):
        raise ValueError("a probe or an option has no name")
    kind = PROBES.get(name)
    known = set() if kind is None else {field.name for field in fields(kind.options)}
    strange = sorted(given.keys() - known)
    if kind is not None:
        options: Options = kind.options(**{key: given[key] for key in given.keys() & known})
        if not strange:
            return name, options
    packed, seconds = bytes(msgpack.packb(given)), raw["seconds"]
    within("options", len(packed), 0, MAX_OPTIONS_BYTES)
    within("seconds", seconds, 0, MAX_SECONDS)
    return name, UnknownOptions(
        kind=kind or _described(name, raw),
        lacks=f"probe {name}" if kind is None else f"option {strange[0]} of {name}",
        packed=packed,
        takes_s=seconds,
        reverse=given.get("reverse") is True,
        bidir=given.get("bidir") is True,
    )


def _described(name: str, raw: Mapping[str, Any]) -> Probe:
    """Make the row of a probe that is not known here, from what the plan says of it."""
    ends, target = raw["ends"], raw["target"]
    if type(ends) is not int or ends not in (1, 2) or (ends == 2 and target):
        raise ValueError("a probe has one end, or two that are nodes")
    return Probe(
        name=name,
        options=UnknownOptions,
        has_two_ends=ends == 2,
        target=valid_name(target) if target else "",
        figures=("throughput",) if ends == 2 else ("mean",),
    )
