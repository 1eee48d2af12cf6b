"""
The measurements that one iperf3 test makes: who sent to whom, and every number in its place.

Pure. Both ends are named by their roles in the test, `near` and `far`; in a record by who sends.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from worker.model.detail import FlowNumbers, TransferSettings, TransferStatistics, common
from worker.model.measurement import Measurement, Outcome, made
from worker.model.names import RunId
from worker.model.options import ThroughputOptions, UdpOptions
from worker.model.plan import PlannedNode, TargetNode
from worker.model.probe import name_of
from worker.probes.iperf3.report import Flow, Iperf3Report
from worker.probes.iperf3.tool import THREADS_VERSION, Iperf3, parse_version
from worker.probes.spent import spent

Options = ThroughputOptions | UdpOptions

#: With so much of a core used, the machine and not the network may set the pace.
CPU_LIMIT_PCT = 90.0


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The two ends of one test in a run: `near` connects to `far`, which listens on `port`."""

    run: RunId
    near: PlannedNode
    far: TargetNode
    port: int
    far_version: str | None = None

    def pairs(self, options: Options) -> list[tuple[PlannedNode, PlannedNode]]:
        """Return (source, target) of each measurement that the test makes."""
        forth, back = (self.near, self.far), (self.far, self.near)
        if options.bidir:
            return [forth, back]
        return [back] if options.reverse else [forth]


def findings(
    ends: Ends,
    options: Options,
    outcome: Outcome,
    error: str,
    started_at: datetime | None = None,
) -> list[Measurement]:
    """Make the measurements of a test that was not made: they say why."""
    at = started_at or datetime.now(timezone.utc)
    settings = TransferSettings(**common(TransferSettings, options))
    return [
        _measurement(ends, options, pair, outcome, error, at, Flow(), settings)
        for pair in ends.pairs(options)
    ]


def records(
    ends: Ends,
    options: Options,
    report: Iperf3Report,
    iperf3: Iperf3,
    outcome: Outcome,
    error: str,
    started_at: datetime,
    test: TransferStatistics,
) -> list[Measurement]:
    """Make one measurement a direction; `iperf3` is near's, `test` is the same of both."""
    near, far = (report.cpu_near_pct, iperf3.text), (report.cpu_far_pct, ends.far_version)
    measured = []
    for pair, flow in zip(ends.pairs(options), _flows(report, options), strict=True):
        sender, receiver = (near, far) if pair[0] == ends.near else (far, near)
        detail = replace(
            test,
            **common(FlowNumbers, flow),
            cpu_source_pct=sender[0],
            cpu_target_pct=receiver[0],
            iperf3_source=sender[1],
            iperf3_target=receiver[1],
            connected_by=ends.near.name,
        )
        measured.append(_measurement(ends, options, pair, outcome, error, started_at, flow, detail))
    return measured


def with_other_way(
    measured: Sequence[Measurement], wanted: Collection[tuple[str, str]]
) -> list[Measurement]:
    """Leave out the direction whose source and target nobody asked for, and keep what it cost."""
    cost = spent(each for each in measured if (each.source, each.target) not in wanted).bytes
    return [
        replace(each, detail=replace(each.transfer, other_way_bytes=cost or None))
        if each.transfer
        else each
        for each in measured
        if (each.source, each.target) in wanted
    ]


def who_limits(
    ends: Ends, options: Options, report: Iperf3Report, iperf3: Iperf3, throttled: str | None
) -> tuple[bool | None, tuple[str, ...]]:
    """Whether a host may have set the pace, and which; None when neither end's CPU is known."""
    streams = options.parallel * (1 + options.bidir)
    reasons = [f"{ends.near.name}: {throttled}"] if throttled else []
    for node, used_pct, version in (
        (ends.near, report.cpu_near_pct, iperf3.version),
        (ends.far, report.cpu_far_pct, parse_version(ends.far_version or "")),
    ):
        cores = streams if version >= THREADS_VERSION else 1
        if used_pct is not None and used_pct >= CPU_LIMIT_PCT * cores:
            reasons.append(f"{node.name}: CPU")
    known = report.cpu_near_pct is not None or bool(reasons)
    return bool(reasons) if known else None, tuple(reasons)


def _flows(report: Iperf3Report, options: Options) -> list[Flow]:
    """Return one flow a pair, in their order; an empty one where iperf3 said nothing at all."""
    wanted = [] if options.reverse else [report.outbound]
    wanted += [report.inbound] if options.reverse or options.bidir else []
    return [flow or Flow() for flow in wanted]


def _measurement(
    ends: Ends,
    options: Options,
    pair: tuple[PlannedNode, PlannedNode],
    outcome: Outcome,
    error: str,
    started_at: datetime,
    flow: Flow,
    detail: TransferSettings,
) -> Measurement:
    source, target = pair
    return made(
        Measurement(
            run=ends.run,
            probe=name_of(options),
            source=source.name,
            target=target.name,
            address=target.address,
            started_at=started_at,
            outcome=outcome,
            error=error,
            packet_loss_pct=flow.packet_loss_pct,
            throughput_mbps=flow.throughput_mbps,
            detail=detail,
        )
    )
