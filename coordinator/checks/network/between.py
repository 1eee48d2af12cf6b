"""
Whether two nodes reach each other, found out by the mesh itself: small runs of just these two.

First echoes and a test of 1 s at 1 Mbit/s in each direction, then handshakes with the first and the
last port on which each listens for tests. What they find is in the stream of results, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import redis

from coordinator.checks.check import Check
from coordinator.checks.mesh import judged, revive, skipped
from coordinator.checks.network.advice import (
    NOT_THE_PATH,
    Way,
    for_handshakes,
    for_ping,
    for_test,
    ports_of,
)
from coordinator.runs.follow import follow_run
from coordinator.runs.planning import Selection, make_plan, registered
from coordinator.runs.starting import start
from worker.model.errors import ConfigError
from worker.model.measurement import Measurement, Outcome
from worker.model.options import Options, PingOptions, TcpOptions, ThroughputOptions
from worker.wire.node_record import Node
from worker.wire.registry import read_nodes

OPTIONS = {
    "ping": PingOptions(count=5, interval_s=0.1, wait_s=1.0),
    "throughput": ThroughputOptions(duration_s=1, bitrate_mbps=1.0),
}
HANDSHAKES, INTERVAL_S, WAIT_S = 3, 0.1, 1.0
#: Outcomes of a handshake that say no more than that nothing answered.
SILENT = (Outcome.NO_REPLY, Outcome.TIMEOUT)
ENDED = "the run was ended before it was measured"


def between(connection: redis.Redis, one: str, other: str, *, by: str) -> Iterator[Check]:
    """
    Yield what works from each of two nodes to the other.

    Raises:
        ConfigError: One of them is not registered, or both are the same.
        RedisUnavailable: The results stream or Redis itself is full.
    """
    if one == other:
        raise ConfigError(f"two different nodes are needed ({one} is named twice)")
    registry = read_nodes(connection)
    known = {node.name: node for node in registry}
    nodes = [registered(known, name) for name in (one, other)]
    dead = [node for node in nodes if not node.alive]
    for node in dead:
        message = f"{node.name} is {node.state}: nothing can be tried"
        yield judged("node", message, {"node": node.name}, fail=True, fix=revive(node))
    if dead:
        return
    trial = _Trial(connection, registry, nodes, by)
    measured = trial.measured(OPTIONS)
    answered = trial.handshakes()
    for source, target in (nodes, nodes[::-1]):
        pair = (source.name, target.name)
        way = Way(
            source=source,
            target=target,
            ping=measured.get(("ping", *pair)),
            handshakes={port: answered.get((*pair, port)) for port in _ports(target)},
            test=measured.get(("throughput", *pair)),
        )
        yield from (_ping(way), _tcp(way), _test(way))


def _ports(node: Node) -> list[int]:
    return sorted(set(ports_of(node)))


@dataclass(frozen=True)
class _Trial:
    """Small runs of two nodes."""

    connection: redis.Redis
    #: All nodes: one that is not asked for may claim the address of one that is.
    registry: Sequence[Node]
    nodes: Sequence[Node]
    by: str

    def measured(
        self, options: Mapping[str, Options], targets: Sequence[str] = ()
    ) -> dict[tuple[str, str, str], Measurement]:
        """Run probes to the end; return what they measured, by probe, source and target."""
        names = [node.name for node in self.nodes]
        chosen = Selection(nodes=names, targets=targets)
        plan = make_plan(self.registry, chosen, list(options), options)
        run, _ = start(self.connection, plan, by=self.by, join=False, registry=self.registry)
        return {
            (m.probe, m.source, m.target): m
            for update in follow_run(self.connection, run)
            for m in update.arrived
        }

    def handshakes(self) -> dict[tuple[str, str, int], Measurement]:
        """Return what became of handshakes, by source, target and port; one run a port."""
        by_port: dict[int, list[str]] = {}
        for node in self.nodes:
            for port in _ports(node) if node.accepts else []:
                by_port.setdefault(port, []).append(node.name)
        answered: dict[tuple[str, str, int], Measurement] = {}
        for port, targets in by_port.items():
            tcp = TcpOptions(port=port, count=HANDSHAKES, interval_s=INTERVAL_S, wait_s=WAIT_S)
            for measurement in self.measured({"tcp": tcp}, targets).values():
                answered[measurement.source, measurement.target, port] = measurement
        return answered


def _ping(way: Way) -> Check:
    name, ping = f"ping {way.source.name} -> {way.target.name}", way.ping
    if ping is None:
        return skipped(name, ENDED)
    lossy = bool(ping.packet_loss_pct) and ping.outcome is Outcome.OK
    message = "" if ping.latency_ms is None else f"{ping.latency_ms:.2f} ms"
    if ping.is_untimed:
        message = f"answered, at no certain time ({way.source.name} was busy, or its clock set)"
    message += f", {ping.packet_loss_pct:.0f} % lost" if lossy else ""
    return _of(ping, name, message, for_ping(way), warn=lossy)


def _tcp(way: Way) -> Check:
    name = f"tcp {way.source.name} -> {way.target.name}"
    if not way.target.accepts:
        why = f"{way.target.name} takes no connections: it always connects"
        return skipped(name, why)
    first, last = ports_of(way.target)
    failed = {p: m for p, m in way.handshakes.items() if m is None or m.outcome is not Outcome.OK}
    listed, fix = " and ".join(map(str, failed or way.handshakes)), for_handshakes(way)
    message = f"no answer from port {listed}" if failed else f"ports {listed} answer"
    whys = [_why(m, fix) for m in failed.values() if m and m.outcome not in SILENT]
    values = {"first_port": first, "last_port": last, "silent_ports": list(failed)}
    return judged(name, whys[0] if whys else message, values, fail=bool(failed), fix=fix)


def _test(way: Way) -> Check:
    name, test = f"iperf3 {way.source.name} -> {way.target.name}", way.test
    if test is None:
        return skipped(name, ENDED)
    rate = test.throughput_mbps
    is_ok = test.outcome is Outcome.OK and rate is not None
    message = f"{rate:.2f} of 1 Mbit/s" if is_ok else ""
    return _of(test, name, message, for_test(way), throughput_mbps=rate)


def _of(
    measured: Measurement, name: str, message: str, fix: str, warn: bool = False, **values: object
) -> Check:
    """Judge a measurement; without a message it says why it found nothing."""
    no_fault = measured.outcome in NOT_THE_PATH
    return judged(
        name,
        message or _why(measured, fix),
        {
            "source": measured.source,
            "target": measured.target,
            "outcome": measured.outcome.value,
            "latency_ms": measured.latency_ms,
            "packet_loss_pct": measured.packet_loss_pct,
            **values,
        },
        fail=measured.outcome is not Outcome.OK and not no_fault,
        warn=warn or no_fault,
        fix=fix,
    )


def _why(failed: Measurement, fix: str) -> str:
    """Return outcome and error, without the remedy where the advice has it or a better one."""
    cause, _, remedy = failed.error.partition("; ")
    is_known = failed.transfer is not None and failed.transfer.path_mtu_bytes is not None
    error = cause if is_known or remedy in fix else failed.error
    return f"{failed.outcome.value}: {error}" if error else failed.outcome.value
