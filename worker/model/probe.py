"""
The probes: one row each says what is asked of it, of whom, what it needs, and what it shows.

Pure. Phases follow the order of the rows: a loaded link spoils round-trip times. How long a probe
takes and which bytes it moves is in the class of its options; how a node carries it out, in
`worker.node.measures`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from worker.model.errors import ConfigError
from worker.model.names import REDIS_TARGET
from worker.model.options import (
    Options,
    PingOptions,
    RedisOptions,
    TcpOptions,
    ThroughputOptions,
    UdpOptions,
)

#: CSV columns that statistics of round-trip times fill.
RTT_COLUMNS = (
    *("latency_ms", "packet_loss_pct", "sent", "received", "wait_s"),
    *("rtt_min_ms", "rtt_mean_ms", "rtt_median_ms", "rtt_p95_ms", "rtt_max_ms", "rtt_stddev_ms"),
    *("jitter_mean_abs_ms", "elapsed_s"),
)
#: And those that a test with iperf3 fills.
TEST_COLUMNS = (
    *("throughput_mbps", "sent_mbps", "bytes_received", "elapsed_s"),
    *("rtt_loaded_median_ms", "host_limited"),
)


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
        columns: CSV columns that it fills, beyond those that every record has.
    """

    name: str
    options: type[Any]
    has_two_ends: bool = False
    target: str = ""
    is_over_tcp: bool = False
    need: Need | None = None
    figures: tuple[str, ...] = ("mean",)
    columns: tuple[str, ...] = ()


PROBES: Mapping[str, Probe] = {
    probe.name: probe
    for probe in (
        Probe(
            name="ping",
            options=PingOptions,
            need=Need.ICMP,
            columns=(
                *RTT_COLUMNS,
                *("duplicates", "late", "refused", "times_refused", "wake_ms", "reply_ttl"),
                *("send_lag_max_ms", "read_lag_max_ms", "receive_drops", "host_limited"),
            ),
        ),
        Probe(
            name="tcp",
            options=TcpOptions,
            is_over_tcp=True,
            columns=(*RTT_COLUMNS, "times_refused", "wake_ms"),
        ),
        Probe(name="redis", options=RedisOptions, target=REDIS_TARGET, columns=RTT_COLUMNS),
        Probe(
            name="throughput",
            options=ThroughputOptions,
            has_two_ends=True,
            is_over_tcp=True,
            need=Need.IPERF3,
            figures=("throughput",),
            columns=(*TEST_COLUMNS, "retransmits"),
        ),
        Probe(
            name="udp",
            options=UdpOptions,
            has_two_ends=True,
            need=Need.IPERF3,
            figures=("throughput", "jitter"),
            columns=(
                *TEST_COLUMNS,
                *("packet_loss_pct", "sent", "received", "jitter_rfc3550_ms", "out_of_order"),
            ),
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
