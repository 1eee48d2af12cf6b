"""
What may be asked of each probe: its options, with bounds, defaults, and flags of `ptzmesh run`.

Pure. Options are frozen into a run's plan and travel as msgpack, so every value is plain. A new
option's default is what was done before there was one, as older plans lack it; bounds of an option
only ever get tighter within a wire version.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from worker.model.errors import ConfigError

#: Names of Linux congestion control modules, such as `bbr` or `cubic` (TCP_CA_NAME_MAX is 16).
CONGESTION = re.compile(r"[a-z][a-z0-9_-]{0,14}")
#: What a bounded test puts on a link, at most, for each byte of its data: TCP/IP headers (72 of
#: 1448 bytes in IPv6), acknowledgements and up to 5 % retransmitted.
WIRE_BYTES_PER_BYTE = 1.15
#: Beyond its bound a stream sends up to two blocks of 128 KiB, what it has in hand at the end.
OVERSHOOT_BYTES = 2 * 131072
#: Connecting and exchanging results on a LAN; a far target takes longer: see `deadline_s`.
SET_UP_S = 1.0
#: Round trips that setting a test up and exchanging its results take: about 1 s at 50 ms
#: (perfSONAR's experience, pscheduler issue 868).
SET_UP_ROUND_TRIPS = 20
#: What an RTT that nobody measured is taken for: a geostationary satellite's is 600 ms.
UNKNOWN_RTT_S = 0.6
#: Buffers that the test filled are emptied before its results can come.
DRAIN_S = 5.0
#: A lost SYN is sent again after 1 s, and then after 2 s more (RFC 6298).
CONNECT_S = 3.5
#: SYN, SYN-ACK, ACK and RST, each with the options of a SYN.
HANDSHAKE_PACKETS, TCP_HEADER_BYTES = 4, 40
ICMP_HEADER_BYTES = 8
#: PING, SET and DEL with their answers and the packets that acknowledge them.
REDIS_OPERATION_BYTES = 700
#: A camera's stream in full HD.
UDP_MBPS = 4.0


@dataclass(frozen=True)
class Flag:
    """
    How an option is asked for on the command line; probes that have it in common share the flag.

    Its names are as click has them, such as `-c` and `--count`.
    """

    names: tuple[str, ...]
    help: str


#: Under this name a field of options has its `Flag`.
FLAG = "flag"


def option(default: Any, names: str, help_: str) -> Any:
    """Declare an option: its default, its flags (`-c/--count`), and what they are."""
    return field(default=default, metadata={FLAG: Flag(tuple(names.split("/")), help_)})


BITRATE = (
    "-b/--bitrate",
    f"Rate of a test, in each direction, at most [default: no limit; udp {UDP_MBPS:g}].",
)


class Options(ABC):
    """What may be asked of one probe; each field of a subclass is an `option`."""

    @property
    @abstractmethod
    def seconds(self) -> float:
        """Time that one sweep takes, in seconds, or one test of a probe with two ends."""

    @property
    def longest_s(self) -> float:
        """Longest time that it can take, in seconds."""
        return self.seconds

    @abstractmethod
    def pair_bytes(self, ip_header_bytes: int) -> int | None:
        """Count what one pair costs each of its ends, sent and received; None has no bound."""


def echo_bytes(ip_header_bytes: int, size_bytes: int) -> int:
    """Count the bytes of an echo and its reply."""
    return 2 * (ip_header_bytes + ICMP_HEADER_BYTES + size_bytes)


def handshake_bytes(ip_header_bytes: int) -> int:
    """Count the bytes of a handshake, its reset included."""
    return HANDSHAKE_PACKETS * (ip_header_bytes + TCP_HEADER_BYTES)


@dataclass(frozen=True, kw_only=True)
class AskingOptions(Options):
    """
    What probes have in common that ask each target several times.

    Attributes:
        count: How often a target is asked.
        interval_s: Seconds between two questions to the same target.
        wait_s: Tmax of RFC 6673: an answer later than this is a loss.
    """

    least_interval_s: ClassVar[float] = 0.01
    most_wait_s: ClassVar[float] = 60.0

    count: int = option(
        10, "-c/--count", "Echoes to each target; handshakes of tcp, operations of redis."
    )
    interval_s: float = option(0.1, "-i/--interval", "Time from one echo to a target to the next.")
    wait_s: float = option(1.0, "-W/--wait-for-reply", "Time after which a reply counts as lost.")

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, naming the rule."""
        whole("count", self.count, 1, 10_000)
        within("interval", self.interval_s, self.least_interval_s, 60.0)
        within("wait_for_reply", self.wait_s, 0.01, self.most_wait_s)


@dataclass(frozen=True, kw_only=True)
class WakingOptions(AskingOptions):
    """
    And those that may have to wake what they ask.

    Attributes:
        warm_up: One question goes before, which pays for address resolution and for radios that
            sleep; it is in no figure but `wake_ms`.
    """

    warm_up: bool = option(
        True,
        "--no-warm-up",
        "Send no echo (or handshake) ahead of the first, which wakes ARP and radios.",
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, naming the rule."""
        super().__post_init__()
        flag("warm_up", self.warm_up)

    @property
    def seconds(self) -> float:
        """Longest time one sweep takes, in seconds, when its first and last answers are lost."""
        return self.count * self.interval_s + (1 + self.warm_up) * self.wait_s


@dataclass(frozen=True, kw_only=True)
class PingOptions(WakingOptions):
    """
    How one pair is pinged.

    Attributes:
        size_bytes: ICMP payload.
    """

    least_interval_s: ClassVar[float] = 0.001

    size_bytes: int = option(56, "-s/--size", "Payload of an echo.")

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, naming the rule."""
        super().__post_init__()
        within("size", self.size_bytes, 24, 1400)

    def pair_bytes(self, ip_header_bytes: int) -> int:
        """Count its echoes and their replies."""
        return (self.count + self.warm_up) * echo_bytes(ip_header_bytes, self.size_bytes)


@dataclass(frozen=True, kw_only=True)
class TcpOptions(WakingOptions):
    """
    How handshakes with one pair's target are timed.

    A wait is at most 1 s: then the kernel sends a lost first packet again (RFC 6298 section 2), and
    nobody could tell which one was answered.

    Attributes:
        port: Of the target; a refusal is an answer, so nothing need listen there.
    """

    most_wait_s: ClassVar[float] = 1.0

    port: int = option(22, "-p/--port", "Port with which the tcp probe shakes hands.")

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, naming the rule."""
        super().__post_init__()
        whole("port", self.port, 1, 65535)

    def pair_bytes(self, ip_header_bytes: int) -> int:
        """Count its handshakes."""
        return (self.count + self.warm_up) * handshake_bytes(ip_header_bytes)


@dataclass(frozen=True, kw_only=True)
class RedisOptions(AskingOptions):
    """How a node's operations on the mesh's Redis are timed, `count` of each kind."""

    @property
    def seconds(self) -> float:
        """Longest time one sweep takes, in seconds: three operations each may be waited for."""
        return self.count * (self.interval_s + 3 * self.wait_s) + self.wait_s

    def pair_bytes(self, ip_header_bytes: int) -> int:
        """Count its operations, by whatever version of IP."""
        return REDIS_OPERATION_BYTES * self.count


@dataclass(frozen=True, kw_only=True)
class TransferOptions(Options):
    """
    What tests of both protocols have in common.

    Attributes:
        duration_s: Whole seconds of data; with `bytes_limit`, the longest that it may take.
        omit_s: Whole seconds at the beginning, before these, that are left out of the figures.
        parallel: Streams at once, in each direction.
        bidir: Data in both directions at once: two measurements of one test.
        reverse: The end that connects receives. The record's source is still the one that sends.
        bitrate_mbps: Goodput in 10^6 bit/s that all streams of a direction together do not
            exceed; None is unlimited.
        bytes_limit: The test ends when so many bytes are sent; None is no limit.
        dscp: Differentiated services code point of the data; None leaves the kernel's.
    """

    duration_s: float = option(5.0, "-t/--duration", "How long a throughput or udp test sends.")
    omit_s: float = option(0.0, "--omit", "How long it sends before that, left out of the figures.")
    parallel: int = option(1, "-P/--parallel", "Streams of a test, in each direction.")
    bidir: bool = option(False, "--bidir", "Both directions at once: half as many tests.")
    reverse: bool = option(False, "-R/--reverse", "The target connects; the source still sends.")
    bitrate_mbps: float | None = option(None, *BITRATE)
    bytes_limit: int | None = option(None, "--bytes", "A test ends when so many bytes are sent.")
    dscp: int | None = option(None, "--dscp", "Differentiated services code point of the data.")

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, naming the rule."""
        whole("duration", self.duration_s, 1, 3600)
        whole("omit", self.omit_s, 0, 60)
        whole("parallel", self.parallel, 1, 64)
        flag("bidir", self.bidir)
        flag("reverse", self.reverse)
        if self.bidir and self.reverse:
            raise ConfigError("bidir and reverse exclude each other: bidir is both directions")
        if self.bitrate_mbps is not None:
            within("bitrate", self.bitrate_mbps, 0.01, 1_000_000)
        if self.bytes_limit is not None:
            whole("bytes", self.bytes_limit, 1000, 10**15)
            if self.omit_s:
                raise ConfigError("bytes and omit exclude each other: iperf3 would count both")
        if self.dscp is not None:
            whole("dscp", self.dscp, 0, 63)

    @property
    def seconds(self) -> float:
        """Time one test takes on a LAN, in seconds; never less than its data takes."""
        return self.omit_s + self.duration_s + SET_UP_S

    @property
    def longest_s(self) -> float:
        """Time after which one test is ended, in seconds."""
        return deadline_s(self, None)

    def pair_bytes(self, ip_header_bytes: int) -> int | None:
        """Count one test."""
        return self.worst_case_bytes

    @property
    def worst_case_bytes(self) -> int | None:
        """
        Bytes that each end sends and receives in one test, at the IP layer, at most.

        None when neither `bitrate_mbps` nor `bytes_limit` bounds them.
        """
        bounds = []
        if self.bitrate_mbps is not None:
            bounds.append(self.bitrate_mbps * 1e6 / 8 * (self.omit_s + self.duration_s))
        if self.bytes_limit is not None:
            bounds.append(self.bytes_limit)
        if not bounds:
            return None
        one_way = min(bounds) + OVERSHOOT_BYTES * self.parallel
        return math.ceil(one_way * WIRE_BYTES_PER_BYTE) * (2 if self.bidir else 1)


@dataclass(frozen=True, kw_only=True)
class ThroughputOptions(TransferOptions):
    """
    How the TCP throughput of one pair is measured.

    Attributes:
        congestion: Congestion control of the sender, such as `cubic`; None is its default.
    """

    udp: ClassVar[bool] = False

    congestion: str | None = option(
        None, "--congestion", "Congestion control of the sender, such as bbr."
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, naming the rule."""
        super().__post_init__()
        if self.congestion is not None and not (
            isinstance(self.congestion, str) and CONGESTION.fullmatch(self.congestion)
        ):
            raise ConfigError(
                f"congestion ({str(self.congestion)[:40]!r}) must be a name such as 'cubic': "
                "see sysctl net.ipv4.tcp_available_congestion_control"
            )


@dataclass(frozen=True, kw_only=True)
class UdpOptions(TransferOptions):
    """
    How UDP loss and jitter of one pair are measured, at a given rate.

    Loss is asked for at a rate that the link should carry, not at one that fills it.
    """

    udp: ClassVar[bool] = True

    bitrate_mbps: float | None = option(UDP_MBPS, *BITRATE)

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, naming the rule."""
        super().__post_init__()
        if self.bitrate_mbps is None:
            raise ConfigError("bitrate (None) must be given for UDP: nothing else slows it down")


def deadline_s(options: TransferOptions, idle_rtt_ms: float | None) -> float:
    """
    Compute the longest time that a test may take, in seconds, from its path's RTT when idle.

    >>> deadline_s(ThroughputOptions(duration_s=5), 50.0)
    14.5
    >>> deadline_s(ThroughputOptions(duration_s=5, omit_s=1), None)
    26.5
    """
    set_up_s = CONNECT_S + SET_UP_ROUND_TRIPS * rtt_s(idle_rtt_ms)
    return round(options.omit_s + options.duration_s + set_up_s + DRAIN_S, 3)


def rtt_s(idle_rtt_ms: float | None) -> float:
    """Return a path's RTT when idle, in seconds; what nobody measured is taken for a long one."""
    return UNKNOWN_RTT_S if idle_rtt_ms is None else idle_rtt_ms / 1000


def whole(name: str, value: float, low: int, high: int) -> None:
    """Let a whole number between two bounds pass; iperf3 cuts the rest off without a word."""
    within(name, value, low, high)
    if value != int(value):
        raise ConfigError(f"{name} ({value}) must be a whole number")


def flag(name: str, value: bool) -> None:
    """Let True and False pass; anything else, such as the text "false", is a ConfigError."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} ({value!r}) must be true or false")


def within(name: str, value: float, low: float, high: float) -> None:
    """
    Let a number between two bounds pass.

    Raises:
        ConfigError: No number, or out of bounds; the message names the rule.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name} ({value!r}) must be a number")
    if not low <= value <= high:
        raise ConfigError(f"{name} ({value}) must be between {low} and {high}")
