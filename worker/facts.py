"""
What a node says of itself, found anew as long as it runs.

The supervisor looks with each heartbeat, a job when it begins. A look costs microseconds; a process
is started only when the iperf3 on PATH is another one than before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import redis

from worker.context import NodeContext
from worker.errors import ConfigError
from worker.names import plain_ip
from worker.own_address import is_local, present_address
from worker.policy import Policy
from worker.probes.icmp import icmp_capability
from worker.probes.iperf3 import NOT_THERE, Iperf3, Mark, find_iperf3, mark_of_iperf3

#: An iperf3 that is there and does not answer is asked again so often: a machine may be busy.
ASK_AGAIN_S = 15.0
#: It answers in milliseconds; a heartbeat that waits for it may not be counted as lost.
ANSWER_S = 8.0


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a node's operator says of it: labels, and its own limits."""

    labels: Mapping[str, str]
    policy: Policy


#: Gives what the operator says now where that has changed since it was last asked, else None; a
#: ConfigError when what is said now is wrong.
Reread = Callable[[], Said | None]


@dataclass(kw_only=True)
class Facts:
    """
    What is true of a node now, as of the last `look`.

    Attributes:
        said: By its operator.
        reread: Asks the operator's settings again.
        icmp: `raw`, `datagram` or `none`: how it may ping.
        iperf3: The one on PATH; its `fault` says why it cannot be used.
        is_here: The node's address is one of this machine, not a router's that forwards to it.
    """

    said: Said
    reread: Reread
    icmp: str = "none"
    iperf3: Iperf3 = NOT_THERE
    is_here: bool = False
    _mark: Mark | None = field(default=None, repr=False)
    _ask_at: float = field(default=float("inf"), repr=False)

    def look(self) -> str | None:
        """Look again; give why changed settings are not followed, when they have just become so."""
        self.icmp = icmp_capability()
        self._look_for_iperf3()
        try:
            self.said = self.reread() or self.said
        except ConfigError as exc:
            return str(exc)
        return None

    def _look_for_iperf3(self) -> None:
        mark = mark_of_iperf3()
        if mark == self._mark and time.monotonic() < self._ask_at:
            return
        self._mark, self._ask_at = mark, float("inf")
        self.iperf3 = NOT_THERE if mark is None else find_iperf3(ANSWER_S)
        if mark is not None and self.iperf3.fault:
            self._ask_at = time.monotonic() + ASK_AGAIN_S

    def fields(self, address: str, *, looks_up: bool = False) -> dict[str, str]:
        """
        Give the fields of the node's record that may change while it runs.

        Args:
            address: Where others reach the node.
            looks_up: Where that is a name, look it up; a silent name server takes its time.
        """
        if looks_up or plain_ip(address) is not None:
            self.is_here = is_local(address)
        policy = self.said.policy
        budget = policy.max_bytes_per_day
        return {
            "address": address,
            "labels": json.dumps(dict(self.said.labels), sort_keys=True),
            "icmp": self.icmp,
            "iperf3": self.iperf3.text,
            "iperf3_fault": self.iperf3.fault,
            "accepts": "1" if policy.accepts_connections and self.is_here else "0",
            "links": json.dumps(dict(policy.links), sort_keys=True),
            "ports": "-".join(map(str, policy.ports)),
            "bytes_per_day": "" if budget is None else str(budget),
        }

    def renewed(self, context: NodeContext, connection: redis.Redis) -> NodeContext:
        """
        Give a node's context as it is now, for a job that begins.

        Args:
            context: As it was when the job's process was started.
            connection: To Redis; a job's first.
        """
        self.look()
        address = context.address  # as it was checked at the start, where it was given
        if context.given is None:
            with suppress(redis.RedisError):  # a job goes on without Redis
                address = present_address(connection, address)
        return replace(context, address=address, policy=self.said.policy, iperf3=self.iperf3)
