"""
What the registry has of a node: the fields of `ptzmesh:node:<name>`, and when a node is silent.

A field's name stands here and nowhere else. Anybody may have written a record. A field that is
invalid counts as absent, but a record whose address, links or daily budget is invalid is refused
whole until its next heartbeat: else tests could fill a link or spend a budget that is limited.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

import redis

from worker.model.errors import ConfigError, WireError
from worker.model.fields import exact_count, number_or_none
from worker.model.names import NodeName, parse_ports, valid_address, valid_name
from worker.model.text import one_line
from worker.model.version import WIRE_VERSION
from worker.wire import keyspace
from worker.wire.connection.way import MOST_S
from worker.wire.liveness import ALIVE_S

NODE_TTL_S = 7 * 24 * 3600
#: Longest number that a record has; what Redis counts in fits.
MAX_DIGITS = 18
#: Nodes with this label in common say that they are on one network.
SITE = "site"

#: Of the process that has the name: its token, its id, the file that it holds. Beside them lies
#: what another process that wants the name gets to know of it.
OWNER, INSTANCE, FILE = "owner", "instance", "file"
HOLDER = (OWNER, INSTANCE, FILE, "since", "host", "address")
ADDRESS, STOPPED = "address", "stopped"
#: By role, the name of the node's RQ worker, which its heartbeats keep registered; empty while that
#: gives no sign of life.
RQ_WORKERS = {"prober": "worker:prober", "responder": "worker:responder"}
#: A figure that moves with every heartbeat is sent again when it has moved by more than this share.
STEPS = {"redis_commands_per_s": 0.01, "redis_bytes_per_day": 0.05}
#: The fields of `Record` but for the last, again, a line each: what is read for each pair of a run.
PLACE = "place"
#: What the last event of a fact had, and when that was; the fact's name follows.
TOLD, TOLD_AT = "told:", "told_at:"
#: Fields whose change is an event.
WATCHED = (
    "address", "icmp", "iperf3", "accepts", "labels", "links", "ports", "bytes_per_day", "version",
)  # fmt: skip


class _Form(NamedTuple):
    """How a field is written, and read; what is absent is read as an empty text."""

    write: Callable[[Any], str]
    read: Callable[[str], Any]
    name: str = ""


def _whole(text: str) -> int | None:
    return int(text) if len(text) <= MAX_DIGITS and text.isdecimal() else None


def _address(text: str) -> str:
    try:
        return valid_address(text)
    except ConfigError as exc:
        raise WireError(str(exc)) from exc


def _labels(text: str) -> dict[str, str]:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(raw, dict):
        return {}
    return {one_line(str(key)): one_line(str(value)) for key, value in raw.items()}


def _links(text: str) -> dict[str, int]:
    try:
        raw = json.loads(text or "{}")
        return {valid_name(name): exact_count(capacity) for name, capacity in raw.items()}
    except (ValueError, TypeError, AttributeError, RecursionError, ConfigError) as exc:
        raise WireError(f"links ({text[:80]!r}) are invalid: {exc}") from exc


def _budget(text: str) -> int | None:
    try:
        return exact_count(_whole(text)) if text else None
    except ValueError as exc:
        raise WireError(f"daily budget ({text[:80]!r}) is invalid: {exc}") from exc


def _ports(text: str) -> tuple[int, int] | None:
    try:
        return parse_ports(text)
    except ConfigError:
        return None


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), sort_keys=True)


def _optional(value: float | tuple[int, int] | None) -> str:
    """
    Write a number to three decimals, or a range; nothing for None.

    >>> _optional(1.5), _optional(7), _optional((5201, 5216)), _optional(None)
    ('1.500', '7', '5201-5216', '')
    """
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


_TEXT = _Form(str, one_line)
_NUMBER = _Form(_optional, number_or_none)
_COUNT = _Form(str, lambda text: _whole(text) or 0)
#: By attribute, whose name is that of the field, too, unless the form has another one.
_FORMS: Mapping[str, _Form] = {
    "address": _Form(str, _address),
    "labels": _Form(_json, _labels),
    "boot": _TEXT,
    "netns": _TEXT,
    "gateway": _TEXT,
    "accepts": _Form(lambda on: "1" if on else "0", "1".__eq__),
    # To the microsecond: another one with each start.
    "since": _Form(repr, lambda text: number_or_none(text) or 0.0),
    STOPPED: _Form(lambda on: "1" if on else "", "1".__eq__),
    "links": _Form(_json, _links),
    "bytes_per_day": _Form(_optional, _budget),
    "clock_offset_ms": _NUMBER,
    # Rounded up, with what the rounding of the offset may add.
    "clock_offset_uncertainty_ms": _Form(
        lambda value: _optional(None if value is None else value + 0.001), number_or_none
    ),
    "outbox_bytes": _COUNT._replace(name="outbox"),
    "version": _TEXT,
    "wire": _COUNT,
    "icmp": _Form(str, lambda text: one_line(text) or "none"),
    "iperf3": _TEXT,
    "iperf3_fault": _TEXT,
    "ports": _Form(_optional, _ports),
    "settings_fault": _TEXT,
    "redis_commands_per_s": _NUMBER,
    "redis_bytes_per_day": _Form(_optional, _whole),
    "host": _TEXT,
    "pid": _COUNT,
}

P = TypeVar("P", bound="Part")


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some of the fields of a record."""

    @classmethod
    def _forms(cls) -> dict[str, _Form]:
        return {each.name: _FORMS[each.name] for each in fields(cls) if each.name in _FORMS}

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of its fields in Redis."""
        return [form.name or attribute for attribute, form in cls._forms().items()]

    @classmethod
    def read(cls: type[P], values: Sequence[bytes | None], **known: Any) -> P:
        """
        Read the values of `names`; what else is known is no field of the record.

        Raises:
            WireError: What other nodes are protected by is invalid.
        """
        texts = ((value or b"").decode(errors="replace") for value in values)
        forms = zip(cls._forms().items(), texts, strict=True)
        return cls(**{name: form.read(text) for (name, form), text in forms}, **known)

    def to_fields(self) -> dict[str, str]:
        """Return what is written to Redis."""
        forms = self._forms().items()
        return {form.name or name: form.write(getattr(self, name)) for name, form in forms}


@dataclass(frozen=True, kw_only=True)
class Limits(Part):
    """
    What a node sets to others' tests.

    Attributes:
        links: Shared links on its way → tests that each carries at once.
        bytes_per_day: Its budget for tests; None is no limit.
    """

    links: Mapping[str, int] = field(default_factory=dict)
    bytes_per_day: int | None = None


@dataclass(frozen=True, kw_only=True)
class Clock(Part):
    """
    A node's clock minus Redis', as its last heartbeat estimated it.

    Attributes:
        clock_offset_ms: The estimate; None when it is not known.
        clock_offset_uncertainty_ms: By how much that may be wrong, to either side.
    """

    clock_offset_ms: float | None = None
    clock_offset_uncertainty_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Progress(Part):
    """
    What becomes of the work of a node.

    Attributes:
        since: When its process began, in Redis' seconds; 0 when that is not known.
        outbox_bytes: Results that wait on its disk, as of its last heartbeat.
    """

    since: float = 0.0
    outbox_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Ports(Part):
    """
    Where a node listens for tests.

    Attributes:
        ports: The first and the last one; None when its record lacks them.
    """

    ports: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class FarEnd(Limits, Clock):
    """What a node asks of another one before it tests with it."""

    @property
    def way_s(self) -> float:
        """
        How long its way to Redis and back takes, at most as long as any way; 0 when not known.

        Its heartbeats tell the clocks apart by half of that (`clock_offset`).
        """
        doubt_ms = self.clock_offset_uncertainty_ms
        return 0.0 if doubt_ms is None else min(MOST_S, max(0.0, 2 * doubt_ms / 1000))


@dataclass(frozen=True, kw_only=True)
class Record(Ports):
    """
    Where a node is, whether it lives, and what sets it apart from others at its address.

    Attributes:
        address: Where other nodes reach it.
        labels: What its operator says of it.
        boot: Its machine's boot id; empty when it is not known, as the next two.
        netns: Its network namespace there.
        gateway: MAC address of its default router, if that differs between networks.
        accepts: Its address is one of its own machine, and others can connect to it there.
        since: When its process began: another one with each start.
        stopped: It has said goodbye.
        seen_s: Seconds since its last heartbeat, on Redis' clock; infinite when there was none.
    """

    address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    boot: str = ""
    netns: str = ""
    gateway: str = ""
    accepts: bool = False
    since: float = 0.0
    stopped: bool = False
    seen_s: float = math.inf

    @property
    def alive(self) -> bool:
        """Its last heartbeat is recent, and it has not said goodbye."""
        return self.seen_s <= ALIVE_S and not self.stopped

    @property
    def site(self) -> str:
        """Its label of that name: nodes that have it in common say that they are on one network."""
        return self.labels.get(SITE, "")


@dataclass(frozen=True, kw_only=True)
class Node(Record, Limits, Clock, Progress):
    """
    All that a node says of itself.

    Attributes:
        name: Unique in the mesh.
        version: ptzmesh's version there.
        wire: Its wire version; 0 when it is invalid.
        icmp: `raw`, `datagram` or `none`: how it may ping.
        iperf3: Version of its iperf3; empty when it has none.
        iperf3_fault: Why it has none, and what to do.
        settings_fault: Why what its settings file says now is not followed; empty when it is.
        redis_commands_per_s: Commands that its processes sent to Redis between its last two
            heartbeats, a second; None before the second.
        redis_bytes_per_day: That they exchange with Redis, both ways, with all headers, at the pace
            of the latest hour; None while that is not known.
        host: Its machine's name.
        pid: Its process there.
    """

    name: NodeName
    version: str = ""
    wire: int = WIRE_VERSION
    icmp: str = "none"
    iperf3: str = ""
    iperf3_fault: str = ""
    settings_fault: str = ""
    redis_commands_per_s: float | None = None
    redis_bytes_per_day: int | None = None
    host: str = ""
    pid: int = 0

    def to_fields(self) -> dict[str, str]:
        """Return what is written to Redis."""
        written = super().to_fields()
        return written | {PLACE: "\n".join(written[name] for name in Record.names()[:-1])}

    @property
    def state(self) -> str:
        """In a word, whether it takes part: `alive`, `stopped` on purpose, or `silent`."""
        if self.stopped:
            return "stopped"
        return "alive" if self.alive else "silent"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready object with the attributes' names."""
        maps = {"labels": dict(self.labels), "links": dict(self.links)}
        return {"name": self.name, **vars(self), **maps, "state": self.state, "alive": self.alive}


def has_stopped(connection: redis.Redis, node: NodeName) -> bool:
    """Read whether a node has said goodbye."""
    return bool(connection.hget(keyspace.node_key(node), STOPPED))


def share_a_namespace(one: Record, other: Record) -> bool:
    """Whether two nodes are known to be in one network namespace of one machine."""
    namespace = (one.boot, one.netns)
    return all(namespace) and namespace == (other.boot, other.netns)


def share_a_network(one: Record | None, other: Record) -> bool:
    """Whether two nodes have a `site` label or a default router in common."""
    if one is None:
        return False
    in_common = (one.site and one.site == other.site, one.gateway and one.gateway == other.gateway)
    return any(in_common)
