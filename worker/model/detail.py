"""
What a record has beside its three headline numbers: the statistics of its probe, and remarks.

Pure. On the wire it is a flat map of names that end in their units. What is read is one of ours
and whole, or it stays as it came, in `more`: what a newer node adds, and what a program records of
itself, is kept and written again. A field that is added within a wire version has a default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cache, lru_cache, partial
from typing import Any, ClassVar, NamedTuple, TypeVar

from worker.model.rtt import RttStatistics

#: Decimals that a nanosecond has, by the unit at the end of a name.
DECIMALS = {"_ms": 6, "_s": 9}
#: Metadata of a field that is written only where it has something to say.
RARE = {"rare": True}
#: No number of ours is as large: sums and products of some stay finite.
LIMIT = 2.0**64

AnyDetail = TypeVar("AnyDetail", bound="Detail")
Made = TypeVar("Made")
Series = Callable[[list[Any]], tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class Detail:
    """
    What a record of any probe may have.

    Attributes:
        clock_offset_ms: Its source's clock minus Redis'.
        clock_offset_uncertainty_ms: How wrong that may be, to either side.
        unverified: `yes` where the address may be another machine's.
        hint: Words of what makes the numbers doubtful, and is no proof.
        more: What is none of the fields, by name; plain msgpack values.
    """

    #: Which numbers it has in the record itself.
    HEADLINE: ClassVar[tuple[str, ...]] = ()
    clock_offset_ms: float | None = field(default=None, metadata=RARE)
    clock_offset_uncertainty_ms: float | None = field(default=None, metadata=RARE)
    unverified: str | None = field(default=None, metadata=RARE)
    hint: str | None = field(default=None, metadata=RARE)
    more: Mapping[str, Any] = field(default_factory=dict)

    def to_map(self) -> dict[str, Any]:
        """Return all of it by name, as it is on the wire, in JSON and in cells."""
        values = {name: value for name, value in vars(self).items() if name != "more"}
        for name in self._rare():
            if values[name] is None:
                del values[name]
        return {**values, **self.more}

    @classmethod
    def scalars(cls) -> Mapping[str, frozenset[type]]:
        """Return the names of its fields that are no series, and what they may hold."""
        return cls._readers()[0]

    @classmethod
    @cache
    def _rare(cls) -> frozenset[str]:
        return frozenset(one.name for one in fields(cls) if RARE.keys() <= one.metadata.keys())

    @classmethod
    @cache
    def _readers(cls) -> tuple[Mapping[str, frozenset[type]], Mapping[str, Series]]:
        types = {one.name: str(one.type) for one in fields(cls)}
        return (
            {name: _SCALARS[kind] for name, kind in types.items() if kind in _SCALARS},
            {name: _SERIES[kind] for name, kind in types.items() if kind in _SERIES},
        )


@dataclass(frozen=True, kw_only=True)
class RoundTrips(Detail, RttStatistics):
    """
    What one series of questions to one target has found.

    Attributes:
        sent: Asked.
        received: Answered in time.
        wait_s: Later than this is lost.
        interval_s: From one question to the next, as it was asked for.
        elapsed_s: From the first question until the series was complete.
        rtts_ms: In sending order, None where lost or of no certain time; empty where they were
            dropped, as the disk that kept the record was full.
    """

    HEADLINE: ClassVar = ("latency_ms", "packet_loss_pct")
    sent: int
    received: int
    wait_s: float
    interval_s: float
    elapsed_s: float
    rtts_ms: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        """Refuse more answers than questions."""
        if not 0 <= self.received <= self.sent:
            raise ValueError(f"received ({self.received}) must be between 0 and {self.sent}")

    @property
    def answered_rtts_ms(self) -> list[float]:
        """The times without what was lost."""
        return [rtt for rtt in self.rtts_ms if rtt is not None]


@dataclass(frozen=True, kw_only=True)
class PacketTrips(RoundTrips):
    """
    Of packets to another node.

    Attributes:
        times_refused: Received, but of no certain time.
        wake_ms: Of the packet that goes ahead, which is in no other figure.
    """

    times_refused: int | None = None
    wake_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class PingStatistics(PacketTrips):
    """Of echoes; `worker.probes.icmp.series.EchoSeries` says what each is."""

    duplicates: int
    late: int
    errors: int
    error_kind: str | None
    damaged: int
    refused: int
    interval_mean_s: float | None
    size_bytes: int
    reply_ttl: str | None = None
    answered_by: str | None = None
    send_lag_max_ms: float | None
    read_lag_max_ms: float | None
    receive_drops: int
    host_limited: bool
    socket: str


@dataclass(frozen=True, kw_only=True)
class TcpStatistics(PacketTrips):
    """Of handshakes with `port`, each accepted or refused when it was answered."""

    accepted: int
    refusals: int
    port: int


@dataclass(frozen=True, kw_only=True)
class RedisStatistics(RoundTrips):
    """Of PINGs to Redis, and of lockers that were taken and given up there beside them."""

    locker_cycle_median_ms: float | None
    locker_cycle_max_ms: float | None
    locker_cycles: int
    last_error: str


class Interval(NamedTuple):
    """About one second of one direction of a test, as the end that printed it saw it."""

    start_s: float
    end_s: float
    mbps: float
    retransmits: int | None
    omitted: bool


@dataclass(frozen=True, kw_only=True)
class FlowNumbers:
    """
    One direction of a test; each number None when it was not measured.

    Attributes:
        bytes_received: Data that the receiver got.
        elapsed_s: Time in which it got them, by its own clock.
        sent_mbps: What the sender handed to its kernel, 10^6 bit/s.
        bytes_sent: The same in bytes.
        retransmits: TCP segments sent again.
        congestion: The sender's congestion control.
        sent: UDP packets sent.
        received: UDP packets received.
        undecided: UDP packets of the last `UDP_WAIT_S` (1 s) that may still have been on the way.
        jitter_rfc3550_ms: Smoothed one-way jitter at the receiver.
        out_of_order: UDP packets that came after a later one.
        intervals: In order, those of the omitted time too.
        intervals_at: Which end the intervals were seen at, `sender` or `receiver`.
    """

    bytes_received: int | None = None
    elapsed_s: float | None = None
    sent_mbps: float | None = None
    bytes_sent: int | None = None
    retransmits: int | None = None
    congestion: str | None = None
    sent: int | None = None
    received: int | None = None
    undecided: int | None = None
    jitter_rfc3550_ms: float | None = None
    out_of_order: int | None = None
    intervals: tuple[Interval, ...] = ()
    intervals_at: str = "receiver"

    @property
    def interval_bytes(self) -> float:
        """Data of all intervals."""
        return sum(i.mbps * (i.end_s - i.start_s) for i in self.intervals) * 1e6 / 8


@dataclass(frozen=True, kw_only=True)
class TransferSettings(Detail):
    """What was asked of a test with two ends, also where it was not made."""

    duration_s: float
    omit_s: float
    parallel: int
    bidir: bool
    bitrate_mbps: float | None
    bytes_limit: int | None
    dscp: int | None


@dataclass(frozen=True, kw_only=True)
class TransferStatistics(TransferSettings, FlowNumbers):
    """
    One direction of a test for which iperf3 was started.

    Attributes:
        rtt_idle_median_ms: As the same run's pings found it.
        rtt_loaded_median_ms: Of echoes while data flowed; likewise the others that are `loaded`.
        host_limited: A host, not the network, may have set the pace; None where that is unknown.
        host_limits: Which, and why.
        deadline_s: When the test would have been ended.
        test_s: From the client's start to its end.
        cpu_source_pct: CPU time of the sender's iperf3, percent of one core.
        cpu_target_pct: The same of the receiver's.
        connected_by: The node that ran the client.
        interval_columns: What the numbers of an interval are.
        streams_connected: It broke off when its streams were there.
        path_mtu_bytes: The largest packet that passes, where larger ones are swallowed.
        other_way_bytes: What the other direction cost, which has no record of its own.
    """

    HEADLINE: ClassVar = ("throughput_mbps", "packet_loss_pct")
    rtt_idle_median_ms: float | None = None
    rtt_loaded_median_ms: float | None = None
    rtt_loaded_max_ms: float | None = None
    rtt_loaded_sent: int | None = None
    rtt_loaded_received: int | None = None
    host_limited: bool | None = None
    host_limits: tuple[str, ...] = ()
    deadline_s: float
    test_s: float
    cpu_source_pct: float | None = None
    cpu_target_pct: float | None = None
    iperf3_source: str | None = None
    iperf3_target: str | None = None
    connected_by: str | None = None
    interval_columns: tuple[str, ...] = Interval._fields
    streams_connected: bool | None = field(default=None, metadata=RARE)
    path_mtu_bytes: int | None = field(default=None, metadata=RARE)
    other_way_bytes: int | None = field(default=None, metadata=RARE)


def read_detail(kind: type[Detail], values: Mapping[str, Any]) -> Detail:
    """
    Read what came as this kind, or the next of its bases of which all is there and fits.

    >>> found = read_detail(TcpStatistics, {"port": 22, "hint": "odd_port_answered"})
    >>> type(found).__name__, found.hint, found.more
    ('Detail', 'odd_port_answered', {'port': 22})
    """
    for base in kind.__mro__:
        if issubclass(base, Detail):
            own, more = _part(values, *base._readers())
            with suppress(TypeError, ValueError):  # one is missing, or two contradict each other
                return base(**own, more=more)
    raise AssertionError("any map is a detail")


def of_values(kind: type[Made], values: dict[str, Any]) -> Made:
    """
    Make a frozen dataclass of the values of all its fields, which are known to be sound.

    Its own `__init__` takes as long as all else of reading a record: it sets each by a call.
    """
    made = object.__new__(kind)
    made.__dict__.update(values)
    return made


def common(kind: type, source: object) -> dict[str, Any]:
    """Return the values of those fields that another object has by the same names."""
    names = (one.name for one in fields(kind))
    return {name: getattr(source, name) for name in names if hasattr(source, name)}


def rounded(detail: AnyDetail) -> AnyDetail:
    """Round the times to whole nanoseconds, as a record is made."""
    return replace(detail, **times_to_ns({**vars(detail), "more": times_to_ns(detail.more)}))


def times_to_ns(values: Mapping[str, Any]) -> dict[str, Any]:
    """
    Round what a name says is a time, or a series of times; all else stays.

    What a clock does not tell is noise of binary fractions. A record is rounded once, when it is
    made; what reads it takes it as it is.

    >>> times_to_ns({"rtt_mean_ms": 0.07575580000000001, "rtts_ms": (1.2000000000000002, None)})
    {'rtt_mean_ms': 0.075756, 'rtts_ms': (1.2, None)}
    >>> times_to_ns({"elapsed_s": 0.1 + 0.2, "sent_mbps": 0.1 + 0.2})
    {'elapsed_s': 0.3, 'sent_mbps': 0.30000000000000004}
    """
    return {name: _rounded(value, _decimals(name)) for name, value in values.items()}


@lru_cache(maxsize=1024)
def _decimals(name: str) -> int | None:
    return next((count for unit, count in DECIMALS.items() if name.endswith(unit)), None)


def _rounded(value: Any, decimals: int | None) -> Any:
    if decimals is None:
        return value
    if isinstance(value, float):
        return round(value, decimals)
    is_series = isinstance(value, (list, tuple))
    return type(value)(_rounded(one, decimals) for one in value) if is_series else value


def _part(
    values: Mapping[str, Any], scalars: Mapping[str, frozenset[type]], series: Mapping[str, Series]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part what fits its field from all else."""
    own, more = dict[str, Any](), dict[str, Any]()
    for name, value in values.items():
        # Not by functions of each kind: to look at a large mesh is to read a million records.
        kind = type(value)
        if (
            name in scalars
            and kind in scalars[name]
            and (kind is not float or -LIMIT < value < LIMIT)
        ):
            own[name] = value
        elif name in series and kind is list:
            try:
                own[name] = series[name](value)
            except (TypeError, ValueError):
                more[name] = value
        else:
            more[name] = value
    return own, more


def _series(kinds: frozenset[type], values: list[Any]) -> tuple[Any, ...]:
    if not kinds.issuperset(map(type, values)):
        raise ValueError("an item is of another type")
    if not all(-LIMIT < value < LIMIT for value in values if type(value) is float):
        raise ValueError("a number is none of ours")
    return tuple(values)


def _intervals(values: list[Any]) -> tuple[Interval, ...]:
    kinds = [_SCALARS[kind.__forward_arg__] for kind in Interval.__annotations__.values()]
    return tuple(
        Interval(*(_series(k, [v])[0] for k, v in zip(kinds, value, strict=True)))
        for value in values
    )


#: What a value may be, by how the type of its field is written.
_SCALARS: Mapping[str, frozenset[type]] = {
    "int": frozenset({int}),
    "int | None": frozenset({int, type(None)}),
    "float": frozenset({int, float}),
    "float | None": frozenset({int, float, type(None)}),
    "str": frozenset({str}),
    "str | None": frozenset({str, type(None)}),
    "bool": frozenset({bool}),
    "bool | None": frozenset({bool, type(None)}),
}
_SERIES: Mapping[str, Series] = {
    "tuple[float | None, ...]": partial(_series, _SCALARS["float | None"]),
    "tuple[str, ...]": partial(_series, _SCALARS["str"]),
    "tuple[Interval, ...]": _intervals,
}
