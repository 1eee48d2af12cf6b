"""What a job needs to know of the node that runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import redis

from worker.model.names import NodeName
from worker.model.policy import Policy
from worker.probes.iperf3.tool import Iperf3


@dataclass(frozen=True, kw_only=True)
class NodeContext:
    """
    One node, as its jobs see it.

    Attributes:
        name: Unique in the mesh.
        address: Where others reach it.
        given: The address that its operator gave it; None where it was found.
        redis_url: The mesh's Redis; it may hold a password.
        outbox_path: Where results wait for Redis.
        policy: The node's own limits.
        iperf3: The one on PATH; its `fault` says why it cannot be used.
        should_stop: True once the node is to stop.
        renew: Returns it as it is now; None where nothing of it changes.
    """

    name: NodeName
    address: str
    redis_url: str = field(repr=False)
    outbox_path: Path
    policy: Policy
    iperf3: Iperf3
    should_stop: Callable[[], bool]
    given: str | None = None
    renew: Callable[[NodeContext, redis.Redis, bool], NodeContext] | None = None

    def now(self, connection: redis.Redis, *, tests: bool = False) -> NodeContext:
        """
        Return it as it is now, for a job that begins.

        Args:
            connection: The job's own to Redis.
            tests: The job runs iperf3: look whether it is another one by now.
        """
        return self if self.renew is None else self.renew(self, connection, tests)
