"""What a node's process is started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from worker.model.names import NodeName
from worker.model.policy import Policy
from worker.node.registration.facts import NoFile, Reread


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """
    What a node's process is started with.

    Attributes:
        redis_url: The mesh's Redis; it may hold a password.
        address: Where others reach the node, for good; None finds it, again and again.
        reread: Returns labels and policy where they have changed since.
        waits_for_redis: For a network or a Redis that is not there yet when the node starts.
    """

    name: NodeName
    redis_url: str = field(repr=False)
    address: str | None
    labels: Mapping[str, str]
    state_dir: Path
    version: str
    policy: Policy
    reread: Reread = field(default_factory=NoFile)
    waits_for_redis: bool = True
