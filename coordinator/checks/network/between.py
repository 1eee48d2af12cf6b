"""
Whether two nodes reach each other, found out by the mesh itself: small runs of just these two.

First echoes and a test of 1 s at 1 Mbit/s in each direction, then handshakes with the first and the
last port on which each listens for tests. What they find is in the stream of results, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import redis

from coordinator.checks.check import Area, Check, judged, skipped
from coordinator.checks.mesh import revive
from coordinator.checks.network.advice import (
    NOT_THE_PATH,
    Way,
    for_handshakes,
    for_ping,
    for_test,
    ports_of,
)
from coordinator.runs import runs
from coordinator.runs.follow import follow_run
from coordinator.runs.planning import Selection, make_plan, registered
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
        yield judged(Area.MESH, "node", message, {"node": node.name}, fail=True, mend=revive(node))
    if dead:
        return
    trial = _Trial(connection, registry, nodes, by)
    found = trial.measured(OPTIONS)
    answered = trial.handshakes()
    for source, target in (nodes, nodes[::-1]):
        pair = (source.name, target.name)
        way = Way(
            source=source,
            target=target,
            ping=found.get(("ping", *pair)),
            handshakes={
                port: answered.get((*pair, port)) for port in sorted(set(ports_of(target)))
            },
            test=found.get(("throughput", *pair)),
        )
        yield from (_ping(way), _tcp(way), _test(way))


@dataclass(frozen=True)
class _Trial:
    """
    Small runs of two nodes.

    Attributes:
        registry: All nodes: one that is not asked for may claim the address of one that is.
        nodes: The two.
        by: Who triggers them.
    """

    connection: redis.Redis
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
        run, _ = runs.start(self.connection, plan, by=self.by, join=False, registry=self.registry)
        return {
            (m.probe, m.source, m.target): m
            for update in follow_run(self.connection, run)
            for m in update.arrived
        }

    def handshakes(self) -> dict[tuple[str, str, int], Measurement]:
        """Return what became of handshakes, by source, target and port; one run a port."""
        by_port: dict[int, list[str]] = {}
        for node in self.nodes:
            for port in sorted(set(ports_of(node))) if node.accepts else []:
                by_port.setdefault(port, []).append(node.name)
        answered = {}
        for port, targets in by_port.items():
            tcp = TcpOptions(port=port, count=HANDSHAKES, interval_s=INTERVAL_S, wait_s=WAIT_S)
            measured = self.measured({"tcp": tcp}, targets)
            for (_, source, target), measurement in measured.items():
                answered[source, target, port] = measurement
        return answered


def _ping(way: Way) -> Check:
    name, found = f"ping {way.source.name} -> {way.target.name}", way.ping
    if found is None:
        return skipped(Area.MESH, name, "the run was ended before it was measured")
    mend, lossy = for_ping(way), bool(found.packet_loss_pct) and found.outcome is Outcome.OK
    said = "" if found.latency_ms is None else f"{found.latency_ms:.2f} ms"
    if found.is_untimed:
        said = f"answered, at no certain time ({way.source.name} was busy, or its clock set)"
    said += f", {found.packet_loss_pct:.0f} % lost" if lossy else ""
    return judged(
        Area.MESH,
        name,
        said or _why(found, mend),
        _values(found),
        fail=found.outcome is not Outcome.OK and found.outcome not in NOT_THE_PATH,
        warn=lossy or found.outcome in NOT_THE_PATH,
        mend=mend,
    )


def _tcp(way: Way) -> Check:
    name = f"tcp {way.source.name} -> {way.target.name}"
    if not way.target.accepts:
        why = f"{way.target.name} takes no connections: it always connects"
        return skipped(Area.MESH, name, why)
    first, last = ports_of(way.target)
    failed = {p: m for p, m in way.handshakes.items() if m is None or m.outcome is not Outcome.OK}
    silent, listed = list(failed), " and ".join(map(str, failed or way.handshakes))
    mend = for_handshakes(way)
    whys = [_why(one, mend) for one in failed.values() if one and one.outcome not in SILENT]
    message = f"no answer from port {listed}" if silent else f"ports {listed} answer"
    message = whys[0] if whys else message
    values = {"first_port": first, "last_port": last, "silent_ports": silent}
    return judged(Area.MESH, name, message, values, fail=bool(silent), mend=mend)


def _test(way: Way) -> Check:
    name, found = f"iperf3 {way.source.name} -> {way.target.name}", way.test
    if found is None:
        return skipped(Area.MESH, name, "the run was ended before it was measured")
    rate, mend = found.throughput_mbps, for_test(way)
    is_ok = found.outcome is Outcome.OK and rate is not None
    return judged(
        Area.MESH,
        name,
        f"{rate:.2f} of 1 Mbit/s" if is_ok else _why(found, mend),
        {**_values(found), "throughput_mbps": rate},
        fail=found.outcome is not Outcome.OK and found.outcome not in NOT_THE_PATH,
        warn=found.outcome in NOT_THE_PATH,
        mend=mend,
    )


def _why(found: Measurement, mend: str) -> str:
    """Return outcome and error, without the remedy where the advice has it or a better one."""
    cause, _, remedy = found.error.partition("; ")
    is_known = found.transfer is not None and found.transfer.path_mtu_bytes is not None
    error = cause if is_known or remedy in mend else found.error
    return f"{found.outcome.value}: {error}" if error else found.outcome.value


def _values(found: Measurement) -> dict[str, object]:
    return {
        "source": found.source,
        "target": found.target,
        "outcome": found.outcome.value,
        "latency_ms": found.latency_ms,
        "packet_loss_pct": found.packet_loss_pct,
    }
