"""
The asking side: run one iperf3 test with a node that listens for it, and say what was found.

Probes `throughput` (TCP) and `udp`. Needs iperf3 3.7 or newer. Whoever connects is `near`, whoever
listens is `far`; a record's source is who sends the data. Nothing is raised for what the network, the
other node or iperf3 does: it is the outcome of the measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from worker.measurement import Measurement, Outcome
from worker.options import ThroughputOptions, UdpOptions
from worker.plan import PlannedNode
from worker.probes.icmp import EchoSeries
from worker.probes.iperf3 import THREADS_VERSION, Iperf3, Tool, parse_version, why_unable
from worker.probes.iperf3_json import Flow, Iperf3Report, parse_report
from worker.probes.loaded_rtt import LoadedRtt
from worker.probes.throttle import read_throttle, throttled_by
from worker.rtt import rtt_statistics

Options = ThroughputOptions | UdpOptions

#: Round trips that setting a test up and exchanging its results take: about 1 s at 50 ms
#: (perfSONAR's experience, pscheduler issue 868).
SET_UP_ROUND_TRIPS = 20
#: Of these, before the first byte of data: connecting, cookie, parameters, streams, start.
ROUND_TRIPS_TO_DATA = 6
#: What an RTT that nobody measured is taken for: a geostationary satellite's is 600 ms.
UNKNOWN_RTT_S = 0.6
#: Buffers that the test filled are emptied before its results can come.
DRAIN_S = 5.0
#: A lost SYN is sent again after 1 s, and then after 2 s more (RFC 6298).
CONNECT_S = 3.5
#: TCP's slow start is over in this share of the data's time, and in no more than this.
SLOW_START_SHARE, SLOW_START_MAX_S = 0.25, 1.0
#: With so much of a core used, the machine and not the network may set the pace.
CPU_LIMIT_PCT = 90.0
#: A slow sender's blocks leave this often; iperf3's 128 KiB are more than a second at 1 Mbit/s.
BLOCK_S = 0.02
MAX_BLOCK_BYTES, MIN_BLOCK_BYTES = 131072, 1024


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The two ends of one test in a run: `near` connects to `far`, which listens on `port`."""

    run: str
    near: PlannedNode
    far: PlannedNode
    port: int
    far_version: str | None = None

    def pairs(self, options: Options) -> list[tuple[PlannedNode, PlannedNode]]:
        """Give (source, target) of each measurement that the test makes."""
        forth, back = (self.near, self.far), (self.far, self.near)
        if options.bidir:
            return [forth, back]
        return [back] if options.reverse else [forth]


def probe_of(options: Options) -> str:
    """Give the name of the probe that these are options of."""
    return "udp" if options.udp else "throughput"


def deadline_s(options: Options, idle_rtt_ms: float | None) -> float:
    """
    Give the longest time that a test may take, in seconds, from the RTT that its path has when idle.

    >>> deadline_s(ThroughputOptions(duration_s=5), 50.0)
    14.5
    >>> deadline_s(ThroughputOptions(duration_s=5, omit_s=1), None)
    26.5
    """
    set_up_s = CONNECT_S + SET_UP_ROUND_TRIPS * _rtt_s(idle_rtt_ms)
    return round(options.omit_s + options.duration_s + set_up_s + DRAIN_S, 3)


def measure(
    ends: Ends,
    options: Options,
    *,
    iperf3: Iperf3 | None,
    idle_rtt_ms: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Measurement]:
    """
    Run one test; call it from the main thread, as iperf3 ends with the thread that started it.

    Args:
        ends: Who connects to whom.
        options: What is measured.
        iperf3: This machine's; None makes the outcome `tool_missing`.
        idle_rtt_ms: Median RTT that the same run's ping phase measured; None when there was none.
        should_stop: Asked a few times a second.

    Returns:
        One measurement a direction: two with `bidir`; none when stopped.
    """
    started_at = datetime.now(timezone.utc)
    obstacle = why_unable(iperf3, options)
    if iperf3 is None or obstacle is not None:
        return findings(ends, options, Outcome.TOOL_MISSING, obstacle or "", started_at)
    before, begun = read_throttle(), time.monotonic()
    client = Tool(client_argv(iperf3, ends, options, idle_rtt_ms))
    pings = _start_pings(ends.far.address, options, idle_rtt_ms)
    limit_s = deadline_s(options, idle_rtt_ms)
    try:
        ended = client.pump(begun + limit_s, should_stop=should_stop)
        # A server that is lost in the middle is noticed at the deadline: its intervals are kept.
        late = not ended and time.monotonic() >= begun + limit_s
        if late:
            client.interrupt()
    finally:
        client.kill()
        if not ended:
            pings.stop()
    if not ended and not late:
        return []
    report = parse_report(
        client.stdout, client.stderr, udp=options.udp, reverse=options.reverse, bidir=options.bidir
    )
    if report.outcome not in (Outcome.OK, Outcome.NO_REPLY):
        pings.stop()
    common = {
        **_settings(options),
        **_rtts(pings.series(), idle_rtt_ms),
        "iperf3_near": iperf3.text,
        "iperf3_far": ends.far_version,
        "cpu_near_pct": report.cpu_near_pct,
        "cpu_far_pct": report.cpu_far_pct,
        **_limits(report, options, iperf3, ends, throttled_by(before, read_throttle())),
        "deadline_s": limit_s,
        "test_s": time.monotonic() - begun,
    }
    outcome, error = report.outcome, report.error
    if late and outcome is not Outcome.OK:
        outcome, error = Outcome.TIMEOUT, f"the test had not ended after {limit_s:.1f} s"
    flows = [flow for flow in (report.outbound, report.inbound) if flow is not None] or [Flow()]
    return [
        _measurement(ends.run, pair, options, flow, outcome, error, started_at, common)
        for pair, flow in zip(ends.pairs(options), _padded(flows, options), strict=True)
    ]


def findings(
    ends: Ends,
    options: Options,
    outcome: Outcome,
    error: str,
    started_at: datetime | None = None,
) -> list[Measurement]:
    """Give the measurements of a test that was not made: they say why."""
    at = started_at or datetime.now(timezone.utc)
    return [
        _measurement(ends.run, pair, options, Flow(), outcome, error, at, _settings(options))
        for pair in ends.pairs(options)
    ]


def client_argv(
    iperf3: Iperf3, ends: Ends, options: Options, idle_rtt_ms: float | None
) -> list[str]:
    """Give the command of the client; every value is a number or was checked by the options."""
    connect_ms = 1000 * (CONNECT_S + 2 * _rtt_s(idle_rtt_ms))
    argv = [iperf3.path, "--client", ends.far.address, "--port", str(ends.port), "--json"]
    argv += ["--connect-timeout", str(round(connect_ms)), "--parallel", str(options.parallel)]
    if options.bytes_limit is None:
        argv += ["--time", str(int(options.duration_s)), "--omit", str(int(options.omit_s))]
    else:
        # iperf3 takes one end condition only: the deadline bounds the time.
        argv += ["--bytes", str(int(options.bytes_limit))]
    if options.bitrate_mbps is not None:
        # iperf3's bitrate is each stream's.
        stream_bps = options.bitrate_mbps * 1e6 / options.parallel
        argv += ["--bitrate", str(max(1, round(stream_bps)))]
        if not options.udp:
            block = min(max(round(stream_bps / 8 * BLOCK_S), MIN_BLOCK_BYTES), MAX_BLOCK_BYTES)
            argv += ["--length", str(block)]
    if options.udp:
        argv.append("--udp")
    if isinstance(options, ThroughputOptions) and options.congestion is not None:
        argv += ["--congestion", options.congestion]
    if options.dscp is not None:
        argv += ["--dscp", str(int(options.dscp))]
    argv += ["--reverse"] if options.reverse else []
    argv += ["--bidir"] if options.bidir else []
    return argv


def _start_pings(address: str, options: Options, idle_rtt_ms: float | None) -> LoadedRtt:
    # An RTT that is not known is taken for small here: pings before the data would be idle ones.
    to_data_s = ROUND_TRIPS_TO_DATA * (idle_rtt_ms or 0.0) / 1000
    slow_start_s = min(options.duration_s * SLOW_START_SHARE, SLOW_START_MAX_S)
    data_s = to_data_s + options.omit_s
    return LoadedRtt(
        address,
        begin_s=data_s + slow_start_s,
        end_s=data_s + options.duration_s * 0.95,
    )


def _rtt_s(idle_rtt_ms: float | None) -> float:
    return UNKNOWN_RTT_S if idle_rtt_ms is None else idle_rtt_ms / 1000


def _padded(flows: Sequence[Flow], options: Options) -> list[Flow]:
    return [*flows, *([Flow()] * (1 + options.bidir - len(flows)))]


def _settings(options: Options) -> dict[str, Any]:
    return {
        "duration_s": options.duration_s,
        "omit_s": options.omit_s,
        "parallel": options.parallel,
        "bidir": options.bidir,
        "bitrate_mbps": options.bitrate_mbps,
        "bytes_limit": options.bytes_limit,
        "dscp": options.dscp,
    }


def _rtts(series: EchoSeries | None, idle_rtt_ms: float | None) -> dict[str, Any]:
    loaded = rtt_statistics(series.rtts_ms if series else ())
    return {
        "rtt_idle_median_ms": idle_rtt_ms,
        "rtt_loaded_median_ms": loaded.rtt_median_ms,
        "rtt_loaded_max_ms": loaded.rtt_max_ms,
        "rtt_loaded_sent": series.sent if series else None,
        "rtt_loaded_received": series.received if series else None,
    }


def _limits(
    report: Iperf3Report, options: Options, iperf3: Iperf3, ends: Ends, throttled: str | None
) -> dict[str, Any]:
    """Say whether a host may have set the pace; unknown when neither end's CPU is known."""
    streams = options.parallel * (1 + options.bidir)
    reasons = [f"near: {throttled}"] if throttled else []
    for side, used_pct, version in (
        ("near", report.cpu_near_pct, iperf3.version),
        ("far", report.cpu_far_pct, parse_version(ends.far_version or "")),
    ):
        cores = streams if version >= THREADS_VERSION else 1
        if used_pct is not None and used_pct >= CPU_LIMIT_PCT * cores:
            reasons.append(f"{side}: CPU")
    known = report.cpu_near_pct is not None or bool(reasons)
    return {"host_limited": bool(reasons) if known else None, "host_limits": reasons}


def _measurement(
    run: str,
    pair: tuple[PlannedNode, PlannedNode],
    options: Options,
    flow: Flow,
    outcome: Outcome,
    error: str,
    started_at: datetime,
    common: dict[str, Any],
) -> Measurement:
    source, target = pair
    return Measurement(
        run=run,
        probe=probe_of(options),
        source=source.name,
        target=target.name,
        address=target.address,
        started_at=started_at,
        outcome=outcome,
        error=error,
        packet_loss_pct=flow.packet_loss_pct,
        throughput_mbps=flow.throughput_mbps,
        detail={
            **common,
            "bytes_received": flow.bytes_received,
            "bytes_sent": flow.bytes_sent,
            "elapsed_s": flow.elapsed_s,
            "sent_mbps": flow.sent_mbps,
            "retransmits": flow.retransmits,
            "congestion": flow.congestion,
            "sent": flow.sent,
            "received": flow.received,
            "undecided": flow.undecided,
            "jitter_rfc3550_ms": flow.jitter_rfc3550_ms,
            "out_of_order": flow.out_of_order,
            "intervals_at": flow.intervals_at,
            "interval_columns": ["start_s", "end_s", "mbps", "retransmits", "omitted"],
            "intervals": [
                [i.start_s, i.end_s, i.mbps, i.retransmits, i.omitted] for i in flow.intervals
            ],
        },
    )
