"""
The `ping` probe: ICMP echo to all targets at once, paced, one measurement a target.

Needs CAP_NET_RAW, or `net.ipv4.ping_group_range` that includes the worker's group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone

import icmplib

from worker.measurement import Measurement, Outcome
from worker.plan import PingOptions, PlannedNode
from worker.probes.icmp import EchoOptions, EchoSeries, IcmpNotPermitted, echo_many
from worker.rtt import packet_loss_pct, rtt_statistics

PROBE = "ping"


def measure(
    run: str,
    source: str,
    targets: Sequence[PlannedNode],
    options: PingOptions,
    should_stop: Callable[[], bool],
) -> Iterator[Measurement]:
    """
    Yield one measurement a target, in the order in which they are complete.

    Stopped early, it yields nothing for the targets that were not complete.
    """
    literal, unresolved = resolve(targets)
    for target in unresolved:
        yield finding(
            run, source, target, Outcome.UNRESOLVED, f"the address {target.address} does not resolve"
        )
    echo = EchoOptions(
        count=options.count,
        interval_s=options.interval_s,
        wait_s=options.wait_s,
        size_bytes=options.size_bytes,
    )
    addresses = [address for _, address in literal]
    begun = time.monotonic()
    try:
        for index, series in echo_many(addresses, echo, should_stop=should_stop):
            elapsed_s = time.monotonic() - begun
            yield _measurement(run, source, literal[index][0], series, options, elapsed_s)
    except IcmpNotPermitted as exc:
        for target, _ in literal:
            yield finding(run, source, target, Outcome.TOOL_MISSING, str(exc))


def resolve(
    targets: Sequence[PlannedNode],
) -> tuple[list[tuple[PlannedNode, str]], list[PlannedNode]]:
    """Split targets into those with a literal address, and those whose name does not resolve."""
    found, missing = [], []
    for target in targets:
        if icmplib.is_ipv4_address(target.address) or icmplib.is_ipv6_address(target.address):
            found.append((target, target.address))
            continue
        try:
            found.append((target, icmplib.resolve(target.address)[0]))
        except (icmplib.NameLookupError, UnicodeError):
            missing.append(target)
    return found, missing


def finding(
    run: str, source: str, target: PlannedNode, outcome: Outcome, error: str
) -> Measurement:
    """Give a measurement without numbers: it says why there are none."""
    return Measurement(
        run=run,
        probe=PROBE,
        source=source,
        target=target.name,
        address=target.address,
        started_at=datetime.now(timezone.utc),
        outcome=outcome,
        error=error,
    )


def _measurement(
    run: str,
    source: str,
    target: PlannedNode,
    series: EchoSeries,
    options: PingOptions,
    elapsed_s: float,
) -> Measurement:
    statistics = rtt_statistics(series.rtts_ms)
    outcome, error = _verdict(series)
    return Measurement(
        run=run,
        probe=PROBE,
        source=source,
        target=target.name,
        address=series.address,
        started_at=datetime.fromtimestamp(series.started_ns / 1e9, timezone.utc),
        outcome=outcome,
        error=error,
        latency_ms=statistics.rtt_mean_ms,
        packet_loss_pct=packet_loss_pct(series.sent, series.received),
        detail={
            "sent": series.sent,
            "received": series.received,
            "duplicates": series.duplicates,
            "late": series.late,
            "refused": series.refused,
            "wait_s": options.wait_s,
            "interval_s": options.interval_s,
            "size_bytes": options.size_bytes,
            **asdict(statistics),
            "send_lag_max_ms": series.send_lag_max_ms,
            "read_lag_max_ms": series.read_lag_max_ms,
            "socket": series.socket_kind,
            "elapsed_s": elapsed_s,
            "rtts_ms": list(series.rtts_ms),
        },
    )


def _verdict(series: EchoSeries) -> tuple[Outcome, str]:
    if series.received:
        return Outcome.OK, ""
    if series.error_kind is not None:
        return Outcome.UNREACHABLE, series.error or series.error_kind
    return Outcome.NO_REPLY, f"none of {series.sent} echoes was answered"
