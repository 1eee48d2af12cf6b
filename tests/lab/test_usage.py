"""
What a node says that it sends to Redis, held against what the server saw come from its address, and
against the counters of its interface.
"""

from __future__ import annotations

import math
import sys
import threading
from contextlib import suppress
from typing import Any

import pytest
import redis
from waiting import wait_until

from lab.mesh import LabMesh, mesh_of
from lab.net import Lab
from lab.node import Node
from worker.node.registration.heartbeats import CONSTANTS
from worker.wire import liveness, scripts
from worker.wire.registry import read_nodes

pytestmark = pytest.mark.lab


class Watch:
    """All that MONITOR shows: of each command its time, and the address it came from."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url, socket_timeout=None)
        forms = ("beat", "heartbeat")
        digests = [scripts.with_digest(("heard", form), CONSTANTS)[1] for form in forms]
        self.heartbeats = tuple(f"EVALSHA {digest} " for digest in digests)
        self.lines: list[tuple[float, str, str]] = []
        self.begun = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()
        assert self.begun.wait(60)

    def _listen(self) -> None:
        with suppress(redis.ConnectionError), self.client.monitor() as monitor:
            self.begun.set()
            for line in monitor.listen():
                self.lines.append((line["time"], line["client_address"], line["command"]))

    def beats(self, node: str) -> list[int]:
        """Give the places of the heartbeats from an address."""
        return [
            place
            for place, (_, address, command) in enumerate(list(self.lines))
            if address == node and command.startswith(self.heartbeats)
        ]

    def next_beat(self, node: str) -> int:
        """Wait for a heartbeat from an address, and give its place."""
        have = len(self.beats(node))
        wait_until(lambda: len(self.beats(node)) > have, f"{node} is heard", every_s=0.01)
        return self.beats(node)[-1]

    def commands(self, address: str, first: int = 0, last: int | None = None) -> list[str]:
        """Give the commands that came from an address between two lines."""
        return [one[2] for one in self.lines[first:last] if one[1] == address]

    def rate(self, address: str, first: int, last: int) -> float:
        """Give the commands a second from there."""
        return len(self.commands(address, first, last)) / self.seconds(first, last)

    def seconds(self, first: int, last: int) -> float:
        """Give the time between two lines."""
        return self.lines[last][0] - self.lines[first][0]


def said(mesh: LabMesh, name: str) -> Any:
    return next(one.redis_commands_per_s for one in read_nodes(mesh.connection) if one.name == name)


def agreed(mesh: LabMesh, watch: Watch) -> float:
    """
    Wait for a heartbeat of n0, and hold what it says against what the server saw since the last.

    A node counts just before it beats. When it or the server stands still in between, heartbeats
    are not 10 s apart, and what others sent meanwhile, up to thrice the mean, is in one count only.
    """
    node = mesh.lab.nodes[0].address
    last = watch.next_beat(node)
    told = said(mesh, "n0")
    first = watch.beats(node)[-2]
    stood_still = abs(watch.seconds(first, last) - liveness.HEARTBEAT_S) / liveness.HEARTBEAT_S
    seen = watch.rate(node, first, last)
    assert math.isclose(told, seen, rel_tol=0.02 + 3 * stood_still)
    return float(told)


def test_a_node_says_what_the_server_sees_of_it_idle_and_while_it_measures() -> None:
    """
    Over one heartbeat idle, and one in which all kinds of its processes send.

    The run is triggered on n2, whose commands come from another address.
    """
    with mesh_of(3) as mesh:
        watch = Watch(mesh.lab.redis.socket_url)  # it ends with the server
        watch.next_beat(mesh.lab.nodes[0].address)  # which opens its connection
        watch.next_beat(mesh.lab.nodes[0].address)
        idle = agreed(mesh, watch)
        probes = ("ping", "tcp", "redis", "throughput")
        what = [word for probe in probes for word in ("--probe", probe)]
        mesh.detach(
            mesh.lab.nodes[2], "--nodes", "n0,n1", "--interval", "0.05", "--duration", "1",
            "--bitrate", "5", *what,
        )  # fmt: skip
        # A slow machine measures during the next one, too.
        assert max(agreed(mesh, watch) for _ in range(2)) > 5 * idle


#: Commands of all sizes, some that wait, by two connections of which one is closed; what that is.
MUCH = """
import os, sys
from worker.wire.connection import server, traffic
one, other = server.connect(sys.argv[1]), server.connect(sys.argv[1])
for size in (1, 100, 10_000, 1_000_000):
    one.set("ptzmesh:x", os.urandom(size))
    other.get("ptzmesh:x")
one.close()
child = os.fork()
if child == 0:
    traffic.look()
    os._exit(0)
os.waitpid(child, 0)
other.blpop(["ptzmesh:none"], timeout=1)
with other.pipeline() as pipeline:
    for number in range(500):
        pipeline.set("ptzmesh:x", number)
    pipeline.execute()
traffic.look()
traffic.look()
print(traffic.total_bytes())
"""


def at_interface(node: Node) -> int:
    """Give the bytes of all frames that a node has sent and got."""
    paths = [f"/sys/class/net/eth0/statistics/{way}_bytes" for way in ("rx", "tx")]
    return sum(map(int, node.run(["cat", *paths]).stdout.split()))


def test_bytes_are_counted_as_they_pass_the_interface() -> None:
    with Lab(1, redis=True) as lab:
        (node,) = lab.nodes
        before = at_interface(node)
        counted = int(node.run([sys.executable, "-c", MUCH, lab.redis_url]).stdout)
        # ARP, and what the kernel sends after the process has ended.
        assert counted == pytest.approx(at_interface(node) - before, rel=0.01)
