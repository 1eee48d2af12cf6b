"""
Whether two nodes reach each other, found out by the mesh itself: small runs of just these two.

First echoes and a test of 1 s at 1 Mbit/s in each direction, then handshakes with the first and the
last port on which each listens for tests. What they find is in the stream of results, too.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

import redis

from coordinator import runs
from coordinator.checks.check import Area, Check, judged, skipped
from coordinator.checks.proxies import mend_for
from coordinator.follow import follow_run
from coordinator.nodes import Node, read_nodes
from coordinator.planning import ProbeOptions, Selection, make_plan, registered
from worker.errors import ConfigError
from worker.measurement import Measurement, Outcome
from worker.options import PingOptions, TcpOptions, ThroughputOptions
from worker.policy import DEFAULT_PORTS
from worker.probes.path_mtu import HEADER_BYTES, IPV6_LEAST_BYTES

OPTIONS = ProbeOptions(
    ping=PingOptions(count=5, interval_s=0.1, wait_s=1.0),
    throughput=ThroughputOptions(duration_s=1, bitrate_mbps=1.0),
)
HANDSHAKES, INTERVAL_S, WAIT_S = 3, 0.1, 1.0

#: What says nothing of the path: the nodes' own settings or tools.
NOT_THE_PATH = {
    Outcome.DENIED: "change that node's own limits, or leave it",
    Outcome.OVER_BUDGET: "wait until tomorrow (UTC), or raise --max-bytes-per-day there",
    Outcome.TARGET_BUSY: "try again when no other run tests it: ptzmesh runs",
    Outcome.CANCELLED: "try again",
}
#: Another machine may answer at the target's address.
WHOSE = (Outcome.WRONG_HOST, Outcome.UNVERIFIED)


def between(connection: redis.Redis, one: str, other: str, *, by: str) -> Iterator[Check]:
    """
    Yield what works from each of two nodes to the other.

    Raises:
        ConfigError: One of them is not registered, or both are the same.
        RedisUnavailable: The results stream or Redis itself is full.
    """
    if one == other:
        raise ConfigError(f"two different nodes are needed ({one} is named twice)")
    known = {node.name: node for node in read_nodes(connection)}
    nodes = [registered(known, name) for name in (one, other)]
    dead = [node for node in nodes if not node.alive]
    for node in dead:
        message = f"{node.name} is {node.state}: nothing can be tried"
        start = f"there: ptzmesh worker --name {node.name}"
        yield judged(Area.MESH, "node", message, {"node": node.name}, fail=True, mend=start)
    if dead:
        return
    found = _measure(connection, nodes, ("ping", "throughput"), OPTIONS, by)
    answered = _handshakes(connection, nodes, by)
    for source, target in (nodes, nodes[::-1]):
        pair = (source.name, target.name)
        yield _ping(source, target, found.get(("ping", *pair)))
        yield _tcp(source, target, answered)
        yield _test(source, target, found.get(("throughput", *pair)))


def _measure(
    connection: redis.Redis,
    nodes: Sequence[Node],
    probes: Sequence[str],
    options: ProbeOptions,
    by: str,
    targets: Sequence[str] = (),
) -> dict[tuple[str, str, str], Measurement]:
    names = [node.name for node in nodes]
    # Of all nodes: one that is not asked for may claim the address of one that is.
    plan = make_plan(
        read_nodes(connection), Selection(nodes=names, targets=targets), probes, options
    )
    run, _ = runs.start(connection, plan, by=by, join=False)
    return {
        (m.probe, m.source, m.target): m
        for update in follow_run(connection, run)
        for m in update.arrived
    }


def _handshakes(
    connection: redis.Redis, nodes: Sequence[Node], by: str
) -> dict[tuple[str, str, int], Measurement]:
    """Give what became of handshakes, by source, target and port; one run a port."""
    by_port: dict[int, list[str]] = {}
    for node in nodes:
        for port in sorted(set(_ports(node))) if node.accepts else []:
            by_port.setdefault(port, []).append(node.name)
    found = {}
    for port, targets in by_port.items():
        tcp = TcpOptions(port=port, count=HANDSHAKES, interval_s=INTERVAL_S, wait_s=WAIT_S)
        measured = _measure(connection, nodes, ("tcp",), ProbeOptions(tcp=tcp), by, targets)
        for (_, source, target), measurement in measured.items():
            found[source, target, port] = measurement
    return found


def _ports(node: Node) -> tuple[int, int]:
    return node.ports or DEFAULT_PORTS


def _ping(source: Node, target: Node, found: Measurement | None) -> Check:
    name = f"ping {source.name} -> {target.name}"
    if found is None:
        return skipped(Area.MESH, name, "the run was ended before it was measured")
    if found.outcome in WHOSE:
        return _other_host(name, found)
    lossy = bool(found.packet_loss_pct) and found.outcome is Outcome.OK
    said = "" if found.latency_ms is None else f"{found.latency_ms:.2f} ms"
    said += f", {found.packet_loss_pct:.0f} % lost" if lossy else ""
    return judged(
        Area.MESH,
        name,
        said or _why(found),
        _values(found),
        fail=found.outcome is not Outcome.OK,
        warn=lossy,
        mend=f"let ICMP pass: on {target.name}, its firewall for echo requests from "
        f"{source.address}; on {source.name}: ptzmesh doctor",
    )


def _tcp(source: Node, target: Node, answered: dict[tuple[str, str, int], Measurement]) -> Check:
    first, last = _ports(target)
    name = f"tcp {source.name} -> {target.name}"
    if not target.accepts:
        return skipped(Area.MESH, name, f"{target.name} takes no connections: it always connects")
    found = {p: answered.get((source.name, target.name, p)) for p in sorted({first, last})}
    if strange := [m for m in found.values() if m is not None and m.outcome in WHOSE]:
        return _other_host(name, strange[0])
    silent = [p for p, m in found.items() if m is None or m.outcome is not Outcome.OK]
    listed = " and ".join(map(str, silent or found))
    values = {"first_port": first, "last_port": last, "silent_ports": silent}
    message, mend = f"ports {listed} answer", ""
    if silent:
        message, mend = f"no answer from port {listed}", open_ports(source, target)
    taken = [m for m in found.values() if m and m.outcome is Outcome.INTERCEPTED]
    if taken:
        message, mend = _why(taken[0]), without_proxy(source, target)
    return judged(Area.MESH, name, message, values, fail=bool(silent), mend=mend)


def _test(source: Node, target: Node, found: Measurement | None) -> Check:
    name = f"iperf3 {source.name} -> {target.name}"
    if found is None:
        return skipped(Area.MESH, name, "the run was ended before it was measured")
    if found.outcome in WHOSE:
        return _other_host(name, found)
    rate = found.throughput_mbps
    message = _why(found)
    if found.outcome is Outcome.OK and rate is not None:
        message = f"{rate:.2f} of 1 Mbit/s"
    # Who listened is who was connected to, which is not always the target.
    listener = source if found.detail.get("connected_by") == target.name else target
    if not target.accepts:
        listener = source
    near = target if listener is source else source
    mend = NOT_THE_PATH.get(found.outcome, open_ports(near, listener))
    largest = found.detail.get("path_mtu_bytes")
    if isinstance(largest, int):
        message, mend = message.partition("; ")[0], clamp(source, target, largest)
    if found.outcome is Outcome.INTERCEPTED:
        mend = without_proxy(near, listener)
    if found.outcome is Outcome.TOOL_MISSING:
        message, _, helps = message.partition("; ")
        mend = f"on the node named: {helps or 'sudo apt-get install iperf3'}; its worker finds it"
    return judged(
        Area.MESH,
        name,
        message,
        {**_values(found), "throughput_mbps": rate},
        fail=found.outcome is not Outcome.OK and found.outcome not in NOT_THE_PATH,
        warn=found.outcome in NOT_THE_PATH,
        mend=mend,
    )


def _other_host(name: str, found: Measurement) -> Check:
    """Say that the target was not reached, where no firewall is at fault."""
    message, _, mend = _why(found).partition("; ")
    return judged(Area.MESH, name, message, _values(found), fail=True, mend=mend)


def open_ports(source: Node, target: Node) -> str:
    """Give the command that lets a node's tests through the other's firewall."""
    first, last = _ports(target)
    rule = f"sudo ufw allow proto tcp from {source.address} to any port {first}:{last}"
    return f"on {target.name}: {rule}"


def clamp(source: Node, target: Node, largest_bytes: int) -> str:
    """
    Give the commands that keep a source's packets small enough for a path that swallows large ones.

    How large a sender's segments are is what the receiver says in its handshake (RFC 6691).
    """
    six = ":" in source.address
    mss = largest_bytes - HEADER_BYTES[socket.AF_INET6 if six else socket.AF_INET]
    rule = f"sudo ip{'6' * six}tables -t mangle -A POSTROUTING -d {source.address} -p tcp"
    rule += f" --tcp-flags SYN,RST SYN -j TCPMSS --set-mss {mss}"
    if six and largest_bytes < IPV6_LEAST_BYTES:
        return f"on {target.name}: {rule}"
    link = f"sudo ip link set dev INTERFACE mtu {largest_bytes}"
    return f"on {target.name}: {rule}; or, on the VPN's interface there: {link}"


def without_proxy(source: Node, target: Node) -> str:
    """Say what keeps a proxy from a node's connections to another."""
    return f"ptzmesh doctor on {source.name} names the rule; {mend_for(target.address)}"


def _why(found: Measurement) -> str:
    return f"{found.outcome.value}: {found.error}" if found.error else found.outcome.value


def _values(found: Measurement) -> dict[str, object]:
    return {
        "source": found.source,
        "target": found.target,
        "outcome": found.outcome.value,
        "latency_ms": found.latency_ms,
        "packet_loss_pct": found.packet_loss_pct,
    }
