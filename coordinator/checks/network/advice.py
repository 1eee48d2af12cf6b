"""
What to do about what was found between two nodes: for each outcome, and each cause of it. Pure.

Silence has two causes that look alike from one probe: a firewall that drops just that, or a way
that passes nothing. What the other probes of the same way found tells them apart.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.checks.network.proxies import fix_for
from worker.model.measurement import Measurement, Outcome
from worker.model.policy import DEFAULT_PORTS
from worker.probes.icmp.echo_socket import PERMIT
from worker.probes.mtu.path_mtu import HEADER_BYTES, IPV6_LEAST_BYTES
from worker.transfer.near import NEITHER
from worker.wire.node_record import Node

#: What says nothing of the way: the nodes' own settings, or that somebody else was first.
NOT_THE_PATH = {
    Outcome.DENIED: "change that node's own limits, or leave it",
    Outcome.OVER_BUDGET: "wait until tomorrow (UTC), or raise --max-bytes-per-day there",
    Outcome.TARGET_BUSY: "try again when no other run tests it: ptzmesh runs",
    Outcome.CANCELLED: "try again",
}
#: What a way's own silence or word looks like.
OF_THE_WAY = (Outcome.NO_REPLY, Outcome.TIMEOUT, Outcome.REFUSED, Outcome.UNREACHABLE)
OWN_FIREWALL = "forbidden by a firewall of this machine"


@dataclass(frozen=True, kw_only=True)
class Way:
    """What was measured from one node to another; None where the run was ended before."""

    source: Node
    target: Node
    ping: Measurement | None
    handshakes: Mapping[int, Measurement | None]
    test: Measurement | None

    @property
    def passes(self) -> bool:
        """Something came back: then it is no matter of routes or addresses."""
        measured = (self.ping, self.test, *self.handshakes.values())
        return any(each is not None and each.outcome is Outcome.OK for each in measured)


def for_ping(way: Way) -> str:
    """Return what to do about echoes of which some or all are lost."""
    ping = way.ping
    if ping is None:
        return ""
    if ping.outcome is Outcome.OK:
        return (
            f"is it the way or only ICMP: ptzmesh run --probe tcp --from {way.source.name} "
            f"--to {way.target.name}; a full link, a weak radio, or a router that limits echoes"
        )
    if ping.outcome not in OF_THE_WAY:
        return _not_the_way(way, ping)
    if not way.passes:
        return no_way(way)
    source, target = way.source.address, way.target.name
    return f"let ICMP pass: on {target}, its firewall for echo requests from {source}"


def for_handshakes(way: Way) -> str:
    """Return what to do about ports of which some or all do not answer."""
    failed = [each for each in way.handshakes.values() if each and each.outcome is not Outcome.OK]
    for handshake in failed:
        if handshake.outcome not in OF_THE_WAY:
            return _not_the_way(way, handshake)
    if any(OWN_FIREWALL in handshake.error for handshake in failed):
        return f"on {way.source.name}: a rule of its own forbids it: sudo nft list ruleset"
    return open_ports(way.source, way.target) if way.passes else no_way(way)


def for_test(way: Way) -> str:
    """Return what to do about a test with iperf3 that did not end well."""
    test = way.test
    if test is None or test.outcome is Outcome.OK:
        return ""
    transfer = test.transfer
    if transfer is not None and transfer.path_mtu_bytes is not None:
        return clamp(way.source, way.target, transfer.path_mtu_bytes)
    near, listener = way.source, way.target
    if not listener.accepts or (transfer and transfer.connected_by == listener.name):
        near, listener = listener, near
    helps = test.error.partition("; ")[2]
    if "(here: " in test.error:  # what the far end says of itself
        return f"on {listener.name}: {helps.partition(' (here: ')[0] or 'the log of its worker'}"
    if test.error == NEITHER[1]:
        return (
            f"start one of {near.name} and {listener.name} without --no-accept, and with an "
            "--address that is its own machine's"
        )
    if test.outcome is Outcome.INTERCEPTED:
        return without_proxy(near, listener)
    if test.outcome not in OF_THE_WAY:
        return _not_the_way(way, test)
    if transfer is None:
        # iperf3 was never started: the listener's responder, or Redis, did not answer.
        return f"try again; then, on {listener.name}: ptzmesh doctor, and the log of its worker"
    if transfer.intervals or transfer.streams_connected:
        return "it connected and broke off: try again; a link that comes and goes, or a full one"
    return open_ports(near, listener) if way.passes else no_way(way)


def _not_the_way(way: Way, measurement: Measurement) -> str:
    """Return what to do about an outcome that is no matter of the way between the two."""
    helps = measurement.error.partition("; ")[2]
    source, target = way.source.name, way.target.name
    other = f"start {target}'s worker with another --address"
    advice = {
        Outcome.UNRESOLVED: f"on {source}: getent hosts {way.target.address}; or {other}",
        Outcome.WRONG_HOST: helps or f"{other}, one that no other machine has",
        Outcome.UNVERIFIED: helps or f"{other}, or let UDP pass between the two: ptzmesh nodes",
        Outcome.INTERCEPTED: without_proxy(way.source, way.target),
        Outcome.SOURCE_LOST: f"on {source}: the log of its worker",
        Outcome.TARGET_LOST: f"on {target}: the log of its worker",
        Outcome.CRASHED: f"on {source}: the log of its worker, and dmesg",
        Outcome.BAD_REPLY: "try again; what iperf3 said: ptzmesh results --run last --json",
        **NOT_THE_PATH,
    }
    if measurement.outcome is Outcome.TOOL_MISSING:
        if "ping" in measurement.error:
            return f"on {source}: {PERMIT}"
        return f"on the node named: {helps or 'sudo apt-get install iperf3'}; its worker finds it"
    return advice.get(measurement.outcome, helps)


def no_way(way: Way) -> str:
    """Return where to look when nothing comes back: an address, a route, a VPN, a firewall."""
    source, target = way.source, way.target
    return (
        f"nothing passes: on {source.name}: ip route get {target.address}; on {target.name}: is "
        f"that its address (ip address), is the VPN up, does its firewall let {source.address} in"
    )


def without_proxy(source: Node, target: Node) -> str:
    """Return what keeps a proxy from a node's connections to another."""
    return f"ptzmesh doctor on {source.name} names the rule; {fix_for(target.address)}"


def ports_of(node: Node) -> tuple[int, int]:
    """Return the first and the last port on which a node listens for tests."""
    return node.ports or DEFAULT_PORTS


def open_ports(source: Node, target: Node) -> str:
    """Return the command that lets a node's tests through the other's firewall."""
    first, last = ports_of(target)
    rule = f"sudo ufw allow proto tcp from {source.address} to any port {first}:{last}"
    return f"on {target.name}: {rule}; if that is so: the firewall of {source.name}, or one between"


def clamp(source: Node, target: Node, largest_bytes: int) -> str:
    """
    Return the commands that keep a source's packets small enough for a path, which swallows others.

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
