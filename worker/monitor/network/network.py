"""
Latency, loss and throughput to a host, measured with the mesh's own probes.

Names, fields and defaults are those of the module that PTZJEPA's users know. Measures on the
caller's thread; the loop in `loop.py` does not. Needs what `worker.probes.icmp.engine` and, for
throughput, `worker.probes.iperf3.tool` need.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from worker.host.resolve import LookUps, resolve
from worker.model.detail import Detail
from worker.model.errors import ConfigError
from worker.model.measurement import Measurement, Outcome
from worker.model.names import NO_NODE, NO_RUN, NodeName, valid_address
from worker.model.options import PingOptions, ThroughputOptions
from worker.model.plan import PlannedNode, TargetNode
from worker.model.text import iso_utc
from worker.monitor.guard import forget, log_once, never_raises
from worker.monitor.network.stats import NUMBERS, Metrics, NetworkStats, no_metrics
from worker.monitor.process import beside, one_test, recorder
from worker.monitor.records.record import NETWORK, PING, THROUGHPUT, label, record
from worker.monitor.settings import DEFAULT_CSV
from worker.monitor.tagging import tags
from worker.probes import ping
from worker.probes.iperf3 import client, tool
from worker.probes.iperf3.record import Ends

logger = logging.getLogger(__name__)

#: The field's default port of a standing iperf3 server.
IPERF3_PORT, SSH_PORT = 5201, 22
COUNT = 10
#: Five echoes a second, so that ten take two seconds, and a sleeping radio is awake for most.
INTERVAL_S = 0.2

network_stats = NetworkStats()


@never_raises(lambda: None)
def measure_latency(host: str, count: int = 5) -> float | None:
    """
    Ping a host; takes `count` / 5 + 2 seconds at most.

    Returns:
        Mean round-trip time in milliseconds; None when nothing answered.
    """
    (pinged,) = measure_hosts([host], count=count)
    return pinged.latency_ms


@never_raises(lambda: None)
def check_throughput(
    host: str, port: int = IPERF3_PORT, duration: float = 5, size_mb: float = 10
) -> float | None:
    """
    Measure the throughput to a standing iperf3 server, which must run there: `iperf3 -s`.

    Args:
        host: Where it runs.
        port: Where it listens.
        duration: Longest that data is sent, in whole seconds.
        size_mb: Most that is sent, in 10^6 bytes.

    Returns:
        Goodput at the receiver in Mbit/s; None when it could not be measured.
    """
    return measure_throughput(host, port, duration, size_mb).throughput_mbps


@never_raises(no_metrics)
def log_network_metrics(
    host: str, port: int = IPERF3_PORT, *, throughput: bool = True, count: int = COUNT
) -> Metrics:
    """
    Measure latency, loss and throughput to a host, and record them as one row.

    Args:
        host: A host name or an address.
        port: Of its iperf3 server.
        throughput: Measure it, which sends up to 10 MB; latency and loss only if not.
        count: Echoes.

    Returns:
        `timestamp` (ISO 8601, UTC), `host`, `latency_ms`, `packet_loss_pct`, `throughput_mbps`;
        what could not be measured is None.
    """
    (pinged,) = measure_hosts([host], count=count)
    tested = measure_throughput(host, port) if throughput else None
    return keep(host, joined(pinged, tested))


@never_raises(lambda: None)
def save_network_stats_to_csv(filename: str | Path = DEFAULT_CSV) -> None:
    """Write the records that are in no file yet; what cannot be written stays for the next time."""
    recorder().save_csv(Path(filename))


def keep(host: str, measurement: Measurement) -> Metrics:
    """Record a measurement of a host and return its metrics as PTZJEPA's file names them."""
    measurement = recorder().add(measurement)
    numbers = {name: getattr(measurement, name) for name in NUMBERS}
    metrics = {"timestamp": iso_utc(measurement.started_at), "host": host, **numbers}
    network_stats.add(host, metrics)
    _log_troubles(measurement)
    shown = " ".join(f"{name}={number}" for name, number in numbers.items())
    logger.info("network host=%s %s", label(host), shown)
    return metrics


@never_raises(lambda: None)
def ping_beside(key: str, host: str, **more: Any) -> None:
    """Ping a host on the monitor's own thread, and record it with `more`; once for a key."""

    def job() -> None:
        for measurement in measure_hosts([host]):
            keep(host, measurement.with_more(more))

    beside().submit(f"{key}/{host}", job)


def measure_hosts(
    hosts: Sequence[str], *, count: int = COUNT, should_stop: Callable[[], bool] = lambda: False
) -> list[Measurement]:
    """Ping hosts all at once: a measurement of each, not recorded yet; fewer when stopped."""
    options = PingOptions(count=count, interval_s=INTERVAL_S)
    present, measured, valid = tags(), dict[str, Measurement](), list[str]()
    for host in dict.fromkeys(hosts):
        try:
            valid.append(valid_address(host))
        except ConfigError as exc:
            measured[label(host)] = _finding(PING, host, Outcome.UNRESOLVED, str(exc))
    for batch in LookUps(valid, own_zones=True).batches(should_stop):
        targets = []
        for host, resolved in batch.items():
            if resolved.literals:
                targets.append(TargetNode(name=NodeName(label(host)), address=resolved.literals[0]))
            else:
                measured[label(host)] = _finding(PING, host, Outcome.UNRESOLVED, resolved.error)
        for pinged in ping.measure(NO_RUN, NO_NODE, targets, options, should_stop):
            measured[pinged.target] = pinged.with_more(present)
    return [measured[label(host)] for host in dict.fromkeys(hosts) if label(host) in measured]


def measure_throughput(
    host: str,
    port: int = IPERF3_PORT,
    duration_s: float = 5,
    size_mb: float = 10,
    should_stop: Callable[[], bool] = lambda: False,
) -> Measurement:
    """Run one iperf3 test against a standing server; the measurement is not recorded yet."""
    try:
        resolved = resolve(valid_address(host), own_zones=True)
    except ConfigError as exc:
        return _finding(THROUGHPUT, host, Outcome.UNRESOLVED, str(exc))
    if not resolved.literals:
        return _finding(THROUGHPUT, host, Outcome.UNRESOLVED, resolved.error)
    far = TargetNode(name=NodeName(label(host)), address=resolved.literals[0])
    near = PlannedNode(name=NO_NODE, address="")
    try:
        options = ThroughputOptions(duration_s=duration_s, bytes_limit=round(size_mb * 1e6))
        ends = Ends(run=NO_RUN, near=near, far=far, port=_iperf3_port(port))
    except ConfigError as exc:
        return _finding(THROUGHPUT, host, Outcome.DENIED, str(exc))
    with one_test():
        tests = client.measure(ends, options, iperf3=tool.find_iperf3(), should_stop=should_stop)
    return tests[0] if tests else _finding(THROUGHPUT, host, Outcome.CANCELLED, "stopped")


def joined(pinged: Measurement, tested: Measurement | None) -> Measurement:
    """Make one record of both; its outcome is that of the pings, the other's is in `detail`."""
    if tested is None:
        return pinged
    more = {
        **tested.detail.to_map(),
        **pinged.detail.to_map(),
        "throughput_outcome": tested.outcome.value,
        "throughput_error": tested.error,
    }
    mbps = tested.throughput_mbps
    return replace(pinged, probe=NETWORK, throughput_mbps=mbps, detail=Detail(more=more))


def _log_troubles(measurement: Measurement) -> None:
    """Log what went wrong, once until it has gone well again."""
    throughput_error = measurement.detail.more.get("throughput_error", "")
    for kind, error in (("ping", measurement.error), ("throughput", throughput_error)):
        key = f"{kind}/{measurement.target}"
        if error:
            log_once(key, "monitor: %s to %s: %s", kind, measurement.target, error)
        else:
            forget(key)


def _iperf3_port(port: int) -> int:
    if port == SSH_PORT:
        text = "monitor: port 22 is ssh's, where no iperf3 can answer; %d is used"
        log_once("port/22", text, IPERF3_PORT)
        return IPERF3_PORT
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ConfigError(f"port ({port!r}) must be a whole number between 1 and 65535")
    return port


def _finding(probe: str, host: str, outcome: Outcome, error: str) -> Measurement:
    return record(probe=probe, target=host, address=host, outcome=outcome, error=error)
