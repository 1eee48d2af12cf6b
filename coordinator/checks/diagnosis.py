"""All checks of `ptzmesh doctor`, one after another: of Redis, of this machine, of the mesh."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import redis

from coordinator.checks import machine, mesh, server
from coordinator.checks.check import Area, Check, failed, skipped
from coordinator.checks.health import unreachable
from coordinator.checks.network.proxies import proxies
from coordinator.checks.network.swallowed import swallowed
from coordinator.checks.refusals import refused
from coordinator.checks.rights import NAME, NODE, rights
from worker.model.errors import WireError
from worker.node.registration.state_folder import owner_path
from worker.wire import scripts
from worker.wire.connection.server import connect
from worker.wire.node_record import Node
from worker.wire.registry import read_nodes
from worker.wire.room import DEFAULTS, read_limits

#: An operator waits for the answer, and a Redis that is away does not answer.
SOCKET_TIMEOUT_S, CONNECT_TIMEOUT_S = 4.0, 2.0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """
    What is looked at.

    Attributes:
        redis_url: Of the mesh; it may hold a password.
        name: This node, if it is one.
        asked: The name was given, not guessed: then this machine is or shall be a node.
    """

    redis_url: str = field(repr=False)
    name: str
    asked: bool
    state_dir: Path
    version: str

    @property
    def is_here(self) -> bool:
        """A worker of this name has run on this machine."""
        return os.access(owner_path(self.state_dir, self.name), os.F_OK)


def diagnose(subject: Subject) -> Iterator[Check]:
    """
    Yield each check as it is done, whatever the others found.

    Raises:
        ConfigError: The Redis URL is invalid.
    """
    connection = connect(
        subject.redis_url,
        socket_timeout_s=SOCKET_TIMEOUT_S,
        connect_timeout_s=CONNECT_TIMEOUT_S,
        retries=0,
    )
    with connection:
        try:
            quickest, info = server.exchange(connection), connection.info()
        except redis.RedisError as exc:
            yield swallowed(connection, exc) or unreachable(exc, subject.redis_url)
            yield from _of_machine(subject, None, None)
            yield skipped(Area.MESH, "mesh", "not looked at without Redis")
            return
        yield server.reachable(subject.redis_url, quickest)
        yield from _with_redis(subject, connection, quickest, info)


def _with_redis(
    subject: Subject, connection: redis.Redis, quickest: server.Exchange, info: server.Info
) -> Iterator[Check]:
    nodes: list[Node] = []
    caps: dict[str, int] = {}
    try:
        nodes, caps = read_nodes(connection), read_limits(connection)
    except redis.ResponseError as exc:
        yield server.not_looked(Area.MESH, "nodes", exc, subject.redis_url)
    except WireError as exc:
        yield failed(Area.MESH, "limit", str(exc))
    own = next((node for node in nodes if node.name == subject.name), None)
    is_node = subject.is_here or subject.asked or own is not None
    yield server.version(info)
    yield server.memory(info, caps.get("redis_memory_pct", DEFAULTS["redis_memory_pct"]))
    yield server.eviction(info)
    yield server.lua(connection, subject.redis_url)
    yield server.persistence(info, server.read_saves(connection))
    roles = [NODE] if is_node else []
    look = partial(_look, subject.redis_url)
    yield from look(Area.REDIS, NAME, lambda: rights(connection, subject.redis_url, roles))
    yield from _of_machine(subject, own, quickest, nodes)
    yield proxies(nodes, own, wanted=is_node)
    now = scripts.redis_seconds(connection)
    yield mesh.own_node(own, subject.name, is_here=subject.is_here, asked=subject.asked)
    yield mesh.silent(nodes)
    yield mesh.addresses(nodes)
    yield mesh.settings(nodes)
    yield mesh.clocks(nodes)
    yield mesh.versions(nodes, subject.version)
    yield mesh.outboxes(nodes)
    yield from look(Area.MESH, "workers", lambda: mesh.workers(connection, nodes))
    yield from look(Area.MESH, "runs", lambda: mesh.overdue(connection, now))
    yield from look(Area.MESH, "refused jobs", lambda: refused(connection))
    yield from look(Area.MESH, "collector", lambda: mesh.groups(connection, now))
    yield from look(Area.MESH, "limit", lambda: mesh.limits(connection, caps, nodes, info))
    yield from look(Area.MESH, "our memory", lambda: mesh.memory(connection, info))
    yield mesh.load(nodes, info)


def _of_machine(
    subject: Subject, own: Node | None, quickest: server.Exchange | None, nodes: Sequence[Node] = ()
) -> Iterator[Check]:
    wanted = subject.is_here or subject.asked
    is_node = wanted or own is not None
    yield machine.icmp(own, wanted=is_node)
    yield machine.iperf3(own, wanted=is_node)
    yield machine.iperf3_test(wanted=wanted)
    if quickest is not None:
        yield machine.clock(quickest, [node for node in nodes if node != own], wanted=is_node)
    yield machine.state_folder(subject.state_dir, wanted=wanted)
    has_redis = quickest is not None
    yield machine.outbox(subject.state_dir, subject.name, own, wanted=wanted, has_redis=has_redis)


def _look(
    url: str, area: Area, name: str, check: Callable[[], Check | list[Check]]
) -> Iterator[Check]:
    """Do a check that this user of Redis may have no right to."""
    try:
        done = check()
    except redis.ResponseError as exc:
        done = server.not_looked(area, name, exc, url)
    yield from done if isinstance(done, list) else [done]
