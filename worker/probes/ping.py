"""
The `ping` probe: ICMP echo to all targets at once, paced, one measurement a target.

Needs CAP_NET_RAW, or `net.ipv4.ping_group_range` that includes the worker's group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone

from worker.model.detail import PingStatistics
from worker.model.measurement import Measurement, Outcome, made
from worker.model.names import RunId
from worker.model.options import PingOptions
from worker.model.plan import TargetNode
from worker.model.rtt import packet_loss_pct, rtt_statistics
from worker.probes.icmp.engine import EchoSeries, IcmpNotPermitted, echo_many

PROBE = "ping"


def measure(
    run: RunId,
    source: str,
    targets: Sequence[TargetNode],
    options: PingOptions,
    should_stop: Callable[[], bool],
) -> Iterator[Measurement]:
    """
    Yield one measurement a target, in the order in which they are complete.

    Stopped early, it yields nothing for the targets that were not complete.
    """
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
    run: RunId, source: str, target: TargetNode, series: EchoSeries, options: PingOptions
) -> Measurement:
    """Make a measurement of a target's series."""
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
                **vars(statistics),
                sent=series.sent,
                received=series.received,
                duplicates=series.duplicates,
                late=series.late,
                errors=series.errors,
                error_kind=series.error_kind,
                damaged=series.damaged,
                refused=series.refused,
                times_refused=series.times_refused,
                wait_s=options.wait_s,
                interval_s=options.interval_s,
                interval_mean_s=series.interval_mean_s,
                size_bytes=options.size_bytes,
                wake_ms=series.wake_ms,
                reply_ttl=" ".join(map(str, series.reply_ttls)) or None,
                answered_by=" ".join(series.answered_by) or None,
                send_lag_max_ms=series.send_lag_max_ms,
                read_lag_max_ms=series.read_lag_max_ms,
                receive_drops=series.receive_drops,
                host_limited=is_host_limited(series, options),
                socket=series.socket_kind,
                elapsed_s=series.elapsed_s,
                rtts_ms=series.rtts_ms,
            ),
        )
    )


def verdict(series: EchoSeries) -> tuple[Outcome, str]:
    """Say what became of the pair; one reply is enough for `ok`, the loss says the rest."""
    if series.received:
        return Outcome.OK, ""
    if series.error_kind is not None:
        return Outcome.UNREACHABLE, series.error or series.error_kind
    silent = f"none of {series.sent} echoes was answered in time"
    if series.answered_by:
        return Outcome.NO_REPLY, f"{silent} by {series.address}; {_who_did(series.answered_by)}"
    return Outcome.NO_REPLY, silent


def _who_did(others: Sequence[str]) -> str:
    return (
        f"{' and '.join(others)} answered in its place: register the node by the address that its "
        "replies come from, or mend the address translation on the way"
    )


def is_host_limited(series: EchoSeries, options: PingOptions) -> bool:
    """Say whether this host was too busy to measure well: replies dropped, or echoes very late."""
    lag_s = (series.send_lag_max_ms or 0.0) / 1e3
    return series.receive_drops > 0 or lag_s > options.interval_s
