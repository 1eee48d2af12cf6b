"""
What a node reports of itself, found again as long as it runs.

The supervisor looks with each heartbeat, and each second at the settings file. A job, which is
forked from a process as old as the worker, begins with what the supervisor holds by then (`held`),
and looks again by itself. A look costs microseconds, unless the iperf3 on PATH is another one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import redis

from worker.identity.context import NodeContext
from worker.identity.own_address import is_local, present_address
from worker.model.errors import ConfigError
from worker.model.names import plain_ip
from worker.model.policy import Policy
from worker.model.text import one_line
from worker.node.registration.held import Held
from worker.probes.icmp.engine import icmp_capability
from worker.probes.iperf3.tool import NOT_THERE, Iperf3, find_iperf3, mark_of_iperf3
from worker.probes.iperf3.tool import Mark as Iperf3Mark
from worker.wire.node_record import Node

#: When an iperf3 that is there and does not answer is asked again: a machine may be busy.
ASK_AGAIN_S = 15.0
#: It answers in milliseconds; a heartbeat that waits for it may not be counted as lost.
ANSWER_S = 8.0
#: How long a job waits for a settings file that is being written, and between two looks.
WRITTEN_S, LOOK_S = 5.0, 0.05

#: Differs for each state of the settings file; None is no file.
Mark = object | None


@dataclass(frozen=True, kw_only=True)
class Said:
    """
    What a node's operator says of it: labels, and its own limits.

    `later` names what else differs from what the node was started with: it takes another start.
    """

    labels: Mapping[str, str]
    policy: Policy
    later: tuple[str, ...] = ()


class Reread(Protocol):
    """
    Returns what the operator says now where that has changed since it was last judged, else None.

    A ConfigError says that what is said now is wrong.
    """

    #: The settings file that was last judged.
    judged: Mark

    def mark(self) -> Mark:
        """Look at the settings file, without reading it."""

    def __call__(self) -> Said | None:
        """Read it where it was not judged yet, and is written to its end."""


class NoFile:
    """What never changes."""

    judged: Mark = None

    def mark(self) -> Mark:
        """Return the mark of no file."""
        return None

    def __call__(self) -> Said | None:
        """Say nothing new."""
        return None


class _Present(NamedTuple):
    """What the supervisor holds, for the jobs: see `Facts`, which has the same."""

    said: Said
    judged: Mark
    address: str
    iperf3: Iperf3
    mark: Iperf3Mark | None
    ask_at: float


@dataclass(kw_only=True)
class Facts:
    """
    What is true of a node now, as of the last `look`.

    Attributes:
        said: By its operator, when that was last valid.
        reread: Asks the operator's settings again.
        complaint: Why what is said now is not followed, as one line; empty when it is.
        icmp: `raw`, `datagram` or `none`: how it may ping.
        iperf3: The one on PATH; its `fault` says why it cannot be used.
        is_here: The node's address is one of this machine, not a router's that forwards to it.
        address: Where others reach the node; empty before it is known.
    """

    said: Said
    reread: Reread
    complaint: str = ""
    icmp: str = "none"
    iperf3: Iperf3 = NOT_THERE
    is_here: bool = False
    address: str = ""
    _mark: Iperf3Mark | None = field(default=None, repr=False)
    _ask_at: float = field(default=float("inf"), repr=False)

    def __post_init__(self) -> None:
        """Let what is forked from here know what is held."""
        self._held = Held(self._present())

    def _present(self) -> _Present:
        return _Present(
            self.said, self.reread.judged, self.address, self.iperf3, self._mark, self._ask_at
        )

    def share(self) -> None:
        """Let the jobs that begin from now on go by what is held; by the supervisor only."""
        self._held.put(self._present())

    def look(self) -> None:
        """Look again at what this machine has."""
        self.icmp = icmp_capability()
        self._look_for_iperf3()

    def look_at_settings(self) -> bool:
        """Read again what the operator says; True when there is something new."""
        try:
            said = self.reread()
        except ConfigError as exc:
            self.complaint = one_line(str(exc))
            return True
        if said is None:
            return False
        self.said, self.complaint = said, ""
        return True

    def _look_for_iperf3(self) -> None:
        mark = mark_of_iperf3()
        if mark == self._mark and time.monotonic() < self._ask_at:
            return
        self._mark, self._ask_at = mark, float("inf")
        self.iperf3 = NOT_THERE if mark is None else find_iperf3(ANSWER_S)
        if mark is not None and self.iperf3.fault:
            self._ask_at = time.monotonic() + ASK_AGAIN_S

    def in_record(self, record: Node, *, looks_up: bool = False) -> Node:
        """
        Return a node's record with what is true now.

        Args:
            record: Its address is where others reach the node.
            looks_up: Where that is a name, look it up; a silent name server takes its time.
        """
        if looks_up or plain_ip(record.address) is not None:
            self.is_here = is_local(record.address)
        policy = self.said.policy
        return replace(
            record,
            labels=self.said.labels,
            icmp=self.icmp,
            iperf3=self.iperf3.text,
            iperf3_fault=self.iperf3.fault,
            accepts=policy.accepts_connections and self.is_here,
            links=policy.links,
            ports=policy.ports,
            bytes_per_day=policy.max_bytes_per_day,
            settings_fault=self.complaint,
        )

    def renewed(self, context: NodeContext, connection: redis.Redis, tests: bool) -> NodeContext:
        """
        Return a node's context as it is now, for a job that begins.

        Args:
            context: As it was when the job's process was started.
            connection: To Redis; a job's first.
            tests: The job runs iperf3; no other job waits for one that does not answer.
        """
        time.tzset()  # hours are of the zone that the machine has now
        held: _Present = self._held.get()
        self.iperf3, self._mark, self._ask_at = held.iperf3, held.mark, held.ask_at
        if tests:
            self._look_for_iperf3()
        address = held.address or context.address  # as it was checked at the start, if given
        if context.given is None:
            with suppress(redis.RedisError):  # a job goes on without Redis
                address = present_address(connection, address)
        policy = self._said_now().policy
        return replace(context, address=address, policy=policy, iperf3=self.iperf3)

    def _said_now(self) -> Said:
        """
        Return what was last validly said.

        As the supervisor holds it, but for a file that it has not judged yet: a job goes by no
        limits that are older than the file.
        """
        until = time.monotonic() + WRITTEN_S
        while True:
            held: _Present = self._held.get()
            self.reread.judged = held.judged
            try:
                said = self.reread()
            except ConfigError:
                return held.said
            is_judged = self.reread.mark() == held.judged
            if said is not None or is_judged or time.monotonic() >= until:
                return said or held.said
            time.sleep(LOOK_S)
