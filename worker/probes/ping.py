"""
The `ping` probe: ICMP echo to all targets at once, paced, one measurement a target.

Needs CAP_NET_RAW, or `net.ipv4.ping_group_range` that includes the worker's group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone

from worker.model.detail import PingStatistics, common
from worker.model.measurement import Measurement, Outcome, made
from worker.model.names import NodeName, RunId
from worker.model.options import PingOptions
from worker.model.plan import TargetNode
from worker.model.rtt import packet_loss_pct, rtt_statistics
from worker.probes.icmp.engine import EchoSeries, IcmpNotPermitted, echo_many

PROBE = "ping"


def measure(
    run: RunId,
    source: NodeName,
    targets: Sequence[TargetNode],
    options: PingOptions,
    should_stop: Callable[[], bool],
) -> Iterator[Measurement]:
    """Yield one measurement a target as each is complete; stopped early, none of the others."""
    addresses = [target.address for target in targets]
    try:
        for index, series in echo_many(addresses, options, should_stop=should_stop):
            yield measurement(run, source, targets[index], series, options)
    except IcmpNotPermitted as exc:
        for target in targets:
            yield Measurement(
                run=run,
                probe=PROBE,
                source=source,
                target=target.name,
                address=target.address,
                outcome=Outcome.TOOL_MISSING,
                error=str(exc),
            )


def measurement(
    run: RunId, source: NodeName, target: TargetNode, series: EchoSeries, options: PingOptions
) -> Measurement:
    """Make the measurement of a target's series."""
    statistics = rtt_statistics(series.rtts_ms)
    outcome, error = verdict(series)
    return made(
        Measurement(
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
            detail=PingStatistics(
                **vars(statistics)
                | common(PingStatistics, options)
                | common(PingStatistics, series)
                | {"answered_by": " ".join(series.answered_by) or None},
                reply_ttl=" ".join(map(str, series.reply_ttls)) or None,
                host_limited=is_host_limited(series, options),
                socket=series.socket_kind,
            ),
        )
    )


def verdict(series: EchoSeries) -> tuple[Outcome, str]:
    """Return what became of the pair; one reply is enough for `ok`, the loss says the rest."""
    if series.received:
        return Outcome.OK, ""
    if series.error_kind is not None:
        return Outcome.UNREACHABLE, series.error or series.error_kind
    silent = f"none of {series.sent} echoes was answered in time"
    if series.answered_by:
        silent += (
            f" by {series.address}; {' and '.join(series.answered_by)} answered in its place: "
            "register the node by the address that its replies come from, or fix the address "
            "translation on the way"
        )
    return Outcome.NO_REPLY, silent


def is_host_limited(series: EchoSeries, options: PingOptions) -> bool:
    """Whether this host was too busy to measure well: replies dropped, or echoes very late."""
    lag_s = (series.send_lag_max_ms or 0.0) / 1e3
    return series.receive_drops > 0 or lag_s > options.interval_s
