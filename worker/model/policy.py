"""
A node's own limits: what it lets others ask of it. They always win over what is asked.

Pure. They live in the node's own settings; Redis only shows them, and no write there widens them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time

from worker.model.errors import ConfigError
from worker.model.measurement import Outcome
from worker.model.names import valid_name
from worker.model.options import TransferOptions, flag, within

#: iperf3's own port and the fifteen after it.
DEFAULT_PORTS = (5201, 5216)

_HOUR = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_HOURS = re.compile(f"({_HOUR})-({_HOUR}|24:00)")


@dataclass(frozen=True, kw_only=True)
class Hours:
    """
    A daily time in which a node may be tested, by its own clock; the end is not in it.

    `23:00-05:00` goes over midnight; the same time twice is the whole day.
    """

    begin: time
    end: time

    def __contains__(self, now: time) -> bool:
        """Whether the time of day is in it."""
        if self.begin < self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end

    def __str__(self) -> str:
        """Write it as a person does."""
        return f"{self.begin:%H:%M}-{self.end:%H:%M}"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """
    What a node allows; None and an empty collection of `sources` or `hours` are no limit.

    Attributes:
        max_duration_s: Longest test, its omitted time included.
        max_bitrate_mbps: Greatest rate a direction; a test without a rate is not let through.
        max_bytes_per_day: Budget of a UTC day, sent and received, tests that it asks for included.
        hours: When it may be tested.
        sources: Nodes that may ask it.
        accepts_connections: Others can connect to it; else it is always the connecting side.
        ports: First and last port on which it listens for a test.
        links: Shared links on its way to everyone → tests that each carries at once.
        allow_unregistered_targets: It may ping, and time handshakes with, addresses that no
            registered node has, if a plan names them. Not its own loopback, and no group address.
    """

    max_duration_s: float | None = None
    max_bitrate_mbps: float | None = None
    max_bytes_per_day: int | None = None
    hours: tuple[Hours, ...] = ()
    sources: frozenset[str] = frozenset()
    accepts_connections: bool = True
    ports: tuple[int, int] = DEFAULT_PORTS
    links: Mapping[str, int] = field(default_factory=dict)
    allow_unregistered_targets: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that allow nothing by mistake, naming the rule."""
        for name, value, low, high in (
            ("max_duration", self.max_duration_s, 1, 3600),
            ("max_bitrate", self.max_bitrate_mbps, 0.01, 1_000_000),
            ("max_bytes_per_day", self.max_bytes_per_day, 0, 10**15),
        ):
            if value is not None:
                within(name, value, low, high)
        flag("accepts_connections", self.accepts_connections)
        flag("allow_unregistered_targets", self.allow_unregistered_targets)
        first, last = self.ports
        within("first port", first, 1024, 65535)
        within("last port", last, first, 65535)
        for name in (*self.sources, *self.links):
            valid_name(name)
        for link, capacity in self.links.items():
            within(f"capacity of link {link}", capacity, 1, 1000)

    @property
    def port_range(self) -> range:
        """The ports on which it listens for a test, in order."""
        return range(self.ports[0], self.ports[1] + 1)


Verdict = tuple[Outcome, str]


def judge(
    policy: Policy,
    options: TransferOptions,
    now_local: datetime,
    spent_today: int,
    near: str | None = None,
) -> Verdict | None:
    """
    Return why a test is not allowed; None when it is.

    Args:
        now_local: The node's time, in its own time zone.
        spent_today: Bytes of its budget that are gone or reserved, this test's own not included.
        near: The node that asks for it; None is this one.

    Returns:
        `denied` or `over_budget`, with the reason for a person.
    """
    if reason := _denial(policy, options, now_local, near):
        return Outcome.DENIED, reason
    if policy.max_bytes_per_day is None:
        return None
    cost = options.worst_case_bytes
    if cost is None:
        return Outcome.DENIED, "this node has a daily budget: ask with --bitrate or --bytes"
    left = max(policy.max_bytes_per_day - spent_today, 0)
    if cost > left:
        return Outcome.OVER_BUDGET, f"the test may cost {cost} bytes; {left} are left for today"
    return None


def _denial(
    policy: Policy, options: TransferOptions, now_local: datetime, near: str | None
) -> str | None:
    if policy.sources and near is not None and near not in policy.sources:
        return f"this node does not let {near} test it"
    if policy.hours and not any(now_local.time() in hours for hours in policy.hours):
        return f"this node may be tested at {', '.join(map(str, policy.hours))} (its local time)"
    longest_s, most_s = options.omit_s + options.duration_s, policy.max_duration_s
    if most_s is not None and longest_s > most_s:
        return f"duration ({longest_s:g} s) is over this node's limit of {most_s:g} s"
    rate, most = options.bitrate_mbps, policy.max_bitrate_mbps
    if most is None:
        return None
    if rate is None:
        return f"this node takes at most {most:g} Mbit/s: ask with --bitrate"
    return (
        f"bitrate ({rate:g} Mbit/s) is over this node's limit of {most:g}" if rate > most else None
    )


def parse_hours(text: str) -> Hours:
    """
    Read a daily time such as `00:00-06:00` or `22:30-05:00`.

    Raises:
        ConfigError: It is of another form.

    >>> str(parse_hours("22:30-05:00"))
    '22:30-05:00'
    >>> time(23, 0) in parse_hours("22:30-05:00"), time(5, 0) in parse_hours("22:30-05:00")
    (True, False)
    """
    match = _HOURS.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"hours ({text[:40]!r}) must look like 22:30-05:00")
    begin, end = match[1], match[2].replace("24:00", "00:00")
    return Hours(begin=time.fromisoformat(begin), end=time.fromisoformat(end))


def parse_links(texts: Sequence[str]) -> dict[str, int]:
    """
    Read shared links such as `cell-7=1`: a name, and the tests that it carries at once.

    Raises:
        ConfigError: One is of another form, or named twice.

    >>> parse_links(["cell-7=1", "hub=2"])
    {'cell-7': 1, 'hub': 2}
    """
    links: dict[str, int] = {}
    for text in texts:
        name, _, capacity = text.partition("=")
        if not re.fullmatch(r"\d{1,4}", capacity) or name in links:
            raise ConfigError(f"link ({text[:80]!r}) must look like cell-7=1, each name once")
        links[valid_name(name)] = int(capacity)
    return links
