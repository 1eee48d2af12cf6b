"""
A network of machines on one machine: Lab.

Every node is a network namespace; a bridge in a namespace of its own joins them, so the host's
network is untouched and the host has no route into the lab. Needs root, iproute2, nftables and
/dev/net/tun; `namespaces.why_unusable` says what is missing.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from types import TracebackType

from lab import namespaces
from lab.commands import ip_batch, run
from lab.node import Node
from lab.redis_server import Persist, RedisServer
from lab.relay_process import RelayProcess
from lab.rules import Delay, Impairments, Pair, Proto, ruleset

#: The last part of an address; 254 is the Redis node's.
MOST_NODES = 250
REDIS_NUMBER = 254

#: How much of a shaped link's rate may pass at once: enough that a timer some milliseconds late on
#: a busy machine loses no throughput, too little to show in a test of a second.
BURST_MS = 5.0

#: tbf never passes a frame larger than its burst.
SMALLEST_BURST_BYTES = 5_000


class Lab:
    """
    Nodes joined by a bridge, and a Redis node, from `with` until its end.

    Packets are as they would be on a wire: no segmentation offload hides many behind one. That
    costs speed: an unshaped link carries some 500 Mbit/s, so shape well below that.

    Whatever is done to a path is done one way, from `source` to `target`, unless the method says
    otherwise, and takes the place of what the same method did to it before.

    Attributes:
        nodes: `n0`, `n1`, ... at 10.77.0.1, 10.77.0.2, ...
        redis_node: Where Redis is, at 10.77.0.254; it has a link like any node, server or not.
        redis: The server there; runs if asked for.
        directory: Scratch space that goes with the lab.
    """

    def __init__(
        self,
        nodes: int,
        *,
        redis: bool = False,
        redis_program: Path | None = None,
        persist: Persist = "nothing",
    ) -> None:
        """
        Describe a lab; entering it makes it.

        Args:
            nodes: How many, without the Redis node.
            redis: Run a server on the Redis node.
            redis_program: Server to run; None takes the embedded one, or one that is installed.
            persist: What the server keeps over a restart.
        """
        if not 1 <= nodes <= MOST_NODES:
            raise ValueError(f"nodes ({nodes}) must be within 1 and {MOST_NODES}")
        prefix = namespaces.new_prefix()
        self.nodes = [Node(f"n{i}", f"{prefix}n{i}", i + 1) for i in range(nodes)]
        self.redis_node = Node("redis", f"{prefix}redis", REDIS_NUMBER)
        self.directory = Path(tempfile.gettempdir(), f"{prefix}lab")
        self.redis = RedisServer(self.redis_node, self.directory, redis_program, persist)
        self._starts_redis = redis
        self._bridge = Node("bridge", f"{prefix}bridge", 255)
        self._everyone = (*self.nodes, self.redis_node)
        self._impairments = Impairments()
        self._holds_back = False
        self._relay: RelayProcess | None = None

    def __enter__(self) -> "Lab":
        """Make the lab; when that fails nothing of it is left."""
        namespaces.sweep_leftovers()
        try:
            self.directory.mkdir(mode=0o700)
            self._create()
            if self._starts_redis:
                self.redis.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the lab."""
        self.close()

    def close(self) -> None:
        """Kill what runs in the lab, whoever started it; remove its namespaces and files."""
        if self._relay is not None:
            self._relay.close()
        machines = (self._bridge, *self._everyone)
        for machine in machines:
            machine.reap()
        namespaces.remove(machine.namespace for machine in machines)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def redis_url(self) -> str:
        """The server's URL for programs on the nodes; the test itself uses `redis.socket_url`."""
        return self.redis.url

    def delay(self, source: Node, target: Node, ms: float, *, jitter_ms: float = 0.0) -> None:
        """
        Add `ms` to the way of each packet from `source` to `target`; 0 heals.

        Args:
            source: Sender.
            target: Receiver.
            ms: One-way delay added, in milliseconds.
            jitter_ms: Uniform in [-jitter_ms, jitter_ms] around `ms`; packets keep their order.
        """
        self._set_delay(_pair(source, target), Delay(ms, jitter_ms))
        self._apply()

    def round_trip(self, a: Node, b: Node, ms: float, *, jitter_ms: float = 0.0) -> None:
        """Add `ms` to the round trip between `a` and `b`: half of it, and of the jitter, a way."""
        for pair in _both_ways(a, b):
            self._set_delay(pair, Delay(ms / 2, jitter_ms / 2))
        self._apply()

    def doze(self, source: Node, target: Node, wake_ms: float) -> None:
        """
        Let the way from `source` to `target` sleep whenever it is idle, as a radio does; 0 heals.

        Args:
            source: Sender.
            target: Receiver.
            wake_ms: How long the first packet after a pause waits, and those that follow it.
        """
        self._set_delay(_pair(source, target), Delay(0.0, wake_ms=wake_ms))
        self._apply()

    def loss(self, source: Node, target: Node, pct: float, proto: Proto = "all") -> None:
        """
        Lose `pct` percent of the packets from `source` to `target`, each by its own lot; 0 heals.

        Args:
            source: Sender; its kernel sees no error.
            target: Receiver.
            pct: Percent.
            proto: What is at risk; "icmp" is ICMPv6 too. Losses of different protocols add up.
        """
        if not 0 <= pct <= 100:
            raise ValueError(f"pct ({pct}) must be within 0 and 100")
        self._impairments.losses_pct[_pair(source, target), proto] = pct
        self._apply()

    def swallow(self, source: Node, target: Node, above_bytes: int | None) -> None:
        """
        Let no IP packet longer than `above_bytes` pass from `source` to `target`; None heals.

        Nobody says «too big»: a VPN or mobile link whose ICMP is filtered. Each packet is one of
        the wire, as the lab's links join no segments.
        """
        if above_bytes is None:
            self._impairments.swallowed_above_bytes.pop(_pair(source, target), None)
        else:
            self._impairments.swallowed_above_bytes[_pair(source, target)] = above_bytes
        self._apply()

    def cut(self, a: Node, b: Node | None = None, *, silent: bool = True) -> None:
        """
        Let nothing pass between `a` and `b`, both ways, until `heal`.

        Args:
            a: One end.
            b: The other; None is every other machine, Redis too.
            silent: Drop; ARP and neighbour discovery go on, so a sender waits until its own
                timeout, as over a routed network. Else the network answers at once: TCP with a
                reset, the rest with ICMP host unreachable.
        """
        self.heal(a, b)
        cuts = self._impairments.silent_cuts if silent else self._impairments.refusing_cuts
        cuts.update(self._pairs_between(a, b))
        self._apply()

    def heal(self, a: Node, b: Node | None = None) -> None:
        """Undo `cut`; `b` as there."""
        for cuts in (self._impairments.silent_cuts, self._impairments.refusing_cuts):
            cuts.difference_update(self._pairs_between(a, b))
        self._apply()

    def shape(
        self,
        node: Node,
        *,
        up_mbps: float | None = None,
        down_mbps: float | None = None,
        buffer_ms: float = 50.0,
    ) -> None:
        """
        Limit the rate of the node's link, counted in Ethernet bytes without preamble.

        Args:
            node: Whose link.
            up_mbps: 10^6 bit/s that the node sends; None is unlimited.
            down_mbps: 10^6 bit/s that it receives; None is unlimited.
            buffer_ms: Longest that a packet queues before one is dropped.
        """
        _shape(node.namespace, "eth0", up_mbps, buffer_ms)
        _shape(self._bridge.namespace, node.name, down_mbps, buffer_ms)

    def unplug(self, node: Node) -> None:
        """
        Pull the node's cable: its link has no carrier, and nothing answers for it.

        As on any LAN, a neighbour without an ARP entry hears "host unreachable" from its own kernel
        after 3 s; `cut(node)` is the silence of a routed network.
        """
        ip_batch([f"link set {node.name} down"], namespace=self._bridge.namespace)

    def plug(self, node: Node) -> None:
        """Put the node's cable back; return when its link has carrier."""
        ip_batch([f"link set {node.name} up"], namespace=self._bridge.namespace)
        node.wait_for_links()

    def allow_datagram_icmp(self, node: Node) -> None:
        """Let every group ping without privilege on the node; a new namespace allows none."""
        node.run(["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"])

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Put the delays, losses and cuts of the block in force together, at its end; 15 ms."""
        self._holds_back = True
        try:
            yield
        finally:
            self._holds_back = False
        self._apply()

    def clear(self) -> None:
        """Heal every delay, loss and cut; shaping and cables stay as they are."""
        self._impairments.clear()
        self._apply()

    def _create(self) -> None:
        machines = (self._bridge, *self._everyone)
        ip_batch(f"netns add {machine.namespace}" for machine in machines)
        ip_batch(_bridge_commands(self._everyone), namespace=self._bridge.namespace)
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(_configure, self._everyone))
        self._bridge.wait_for_links()

    def _set_delay(self, pair: Pair, delay: Delay) -> None:
        if delay.ms or delay.wake_ms:
            self._impairments.delays[pair] = delay
        else:
            self._impairments.delays.pop(pair, None)

    def _apply(self) -> None:
        """Put the impairments in force: first the relay, whose device the rules name."""
        if self._holds_back:
            return
        if self._impairments.delays and self._relay is None:
            self._relay = RelayProcess(self._bridge)
        if self._relay is not None:
            self._relay.set(self._impairments.delays)
        ports = [machine.name for machine in self._everyone]
        self._bridge.run(["nft", "-f", "-"], stdin=ruleset(self._impairments, ports))

    def _pairs_between(self, a: Node, b: Node | None) -> Iterator[Pair]:
        for other in [b] if b is not None else self._everyone:
            if other is not a:
                yield from _both_ways(a, other)


def _pair(source: Node, target: Node) -> Pair:
    return source.mac, target.mac


def _both_ways(a: Node, b: Node) -> Iterator[Pair]:
    return permutations((a.mac, b.mac), 2)


def _bridge_commands(machines: Iterable[Node]) -> Iterator[str]:
    """Without snooping, which would hold back neighbour discovery, and without addresses."""
    yield "link add br0 type bridge stp_state 0 mcast_snooping 0"
    yield "link set br0 addrgenmode none up"
    for machine in machines:
        yield (
            f"link add {machine.name} gso_max_segs 1 type veth"
            f" peer name eth0 address {machine.mac} gso_max_segs 1 netns {machine.namespace}"
        )
        yield f"link set {machine.name} addrgenmode none master br0 up"


def _configure(machine: Node) -> None:
    """Addresses that are usable at once: without duplicate address detection, 1 s in IPv6."""
    ip_batch(
        [
            "link set lo up",
            "link set eth0 addrgenmode none up",
            f"address add {machine.address}/24 dev eth0",
            f"address add {machine.address6}/64 dev eth0 nodad",
        ],
        namespace=machine.namespace,
    )


def _shape(namespace: str, device: str, mbps: float | None, buffer_ms: float) -> None:
    tc = ["tc", "-n", namespace, "qdisc"]
    if mbps is None:
        # A link that was never shaped has no qdisc to delete.
        run([*tc, "del", "dev", device, "root"], check=False)
        return
    burst_bytes = max(round(mbps * 1e6 / 8 * BURST_MS / 1e3), SMALLEST_BURST_BYTES)
    shaper = ["tbf", "rate", f"{round(mbps * 1e6)}bit", "burst", f"{burst_bytes}b"]
    run([*tc, "replace", "dev", device, "root", *shaper, "latency", f"{buffer_ms}ms"])
