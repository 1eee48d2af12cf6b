"""
Near's side: run one iperf3 test with a node that listens for it, and measure.

Probes `throughput` (TCP) and `udp`. Needs iperf3 3.7 or newer. The end that connects is `near`, the
one that listens is `far`; a record's source is the one that sends the data. Nothing is raised for
what the network, the other node or iperf3 does: it is the outcome of the measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from worker.model.detail import TransferSettings, TransferStatistics, common
from worker.model.measurement import Measurement, Outcome
from worker.model.options import CONNECT_S, ThroughputOptions, deadline_s, rtt_s
from worker.model.rtt import rtt_statistics
from worker.probes.icmp.engine import EchoSeries, IcmpNotPermitted
from worker.probes.iperf3.fault import explained
from worker.probes.iperf3.loaded_rtt import LoadedRtt
from worker.probes.iperf3.parse import parse_report
from worker.probes.iperf3.record import Ends, Options, findings, records, who_limits
from worker.probes.iperf3.report import Iperf3Report
from worker.probes.iperf3.throttle import read_throttle, throttled_by
from worker.probes.iperf3.tool import Iperf3, Tool, why_unable
from worker.probes.mtu.asking import BEYOND_ANY_BYTES
from worker.probes.mtu.echo import echo_mtu
from worker.probes.mtu.path_mtu import Direction, PathMtu, in_words
from worker.probes.spent import WHOLE

#: Takes a literal address, the most bytes that matter, and whether to stop.
FindMtu = Callable[[str, int, Callable[[], bool]], PathMtu | None]

#: Of a test's round trips, those before its first byte of data: connecting, cookie, parameters,
#: streams, start.
ROUND_TRIPS_TO_DATA = 6
#: TCP's slow start is over in this share of the data's time, and in no more than this.
SLOW_START_SHARE, SLOW_START_MAX_S = 0.25, 1.0
#: A loaded path's echo is waited for so long; full buffers of seconds are known from mobile links.
WAIT_SHARE, MIN_WAIT_S, MAX_WAIT_S = 0.25, 0.5, 3.0
#: Echoes are sent until then at least, also in a short test.
MIN_END_SHARE = 0.6
#: A slow sender's blocks leave this often; iperf3's 128 KiB are more than a second at 1 Mbit/s.
BLOCK_S = 0.02
MAX_BLOCK_BYTES, MIN_BLOCK_BYTES = 131072, 1024
#: What a test reads on a path that passes its connections and swallows its data.
SWALLOWED = (Outcome.BAD_REPLY, Outcome.TIMEOUT, Outcome.NO_REPLY)
#: IPv6 and TCP headers, with time stamps.
MOST_HEADER_BYTES = 72


def measure(
    ends: Ends,
    options: Options,
    *,
    iperf3: Iperf3,
    idle_rtt_ms: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    find_mtu: FindMtu = echo_mtu,
) -> list[Measurement]:
    """
    Run one test; call it from the main thread, as iperf3 ends with the thread that started it.

    Args:
        ends: Who connects to whom.
        options: What is measured.
        iperf3: This machine's; one that cannot do it makes the outcome `tool_missing`.
        idle_rtt_ms: Median RTT that the same run's ping phase measured; None when there was none.
        should_stop: Asked a few times a second.
        find_mtu: Measures what size passes, where no data came.

    Returns:
        One measurement a direction: two with `bidir`; `cancelled` when stopped, with the intervals
        until then.
    """
    started_at = datetime.now(timezone.utc)
    if obstacle := why_unable(iperf3, options):
        return findings(ends, options, Outcome.TOOL_MISSING, obstacle, started_at)
    before = read_throttle()
    ran = _run(iperf3, ends, options, idle_rtt_ms, should_stop)
    report = ran.report
    outcome, error = report.outcome, explained(report.error)
    if ran.stopped:
        outcome, error = Outcome.CANCELLED, f"the test was ended after {ran.test_s:.1f} s"
    elif ran.late and outcome is not Outcome.OK:
        outcome, error = Outcome.TIMEOUT, f"the test had not ended after {ran.limit_s:.1f} s"
    hole = _hole(ends, options, report, outcome, should_stop, find_mtu)
    if hole is not None:
        outcome, error = Outcome.UNREACHABLE, in_words(hole, ends.near.name, ends.far.name)
    throttled = throttled_by(before, read_throttle())
    host_limited, host_limits = who_limits(ends, options, report, iperf3, throttled)
    loaded = rtt_statistics(ran.pings.rtts_ms if ran.pings else ())
    test = TransferStatistics(
        **common(TransferSettings, options),
        rtt_idle_median_ms=idle_rtt_ms,
        rtt_loaded_median_ms=loaded.rtt_median_ms,
        rtt_loaded_max_ms=loaded.rtt_max_ms,
        rtt_loaded_sent=ran.pings.sent if ran.pings else None,
        rtt_loaded_received=ran.pings.received if ran.pings else None,
        host_limited=host_limited,
        host_limits=host_limits,
        deadline_s=ran.limit_s,
        test_s=ran.test_s,
        streams_connected=True if report.connected and outcome not in WHOLE else None,
        path_mtu_bytes=hole.largest_bytes if hole else None,
    )
    return records(ends, options, report, iperf3, outcome, error, started_at, test)


def _hole(
    ends: Ends,
    options: Options,
    report: Iperf3Report,
    outcome: Outcome,
    should_stop: Callable[[], bool],
    find_mtu: FindMtu,
) -> PathMtu | None:
    """
    Look, when a test connected and no data came, whether the path swallows large packets.

    Not where data came: some firewalls swallow large echoes, which explains nothing else.
    """
    flows = [flow for flow in (report.outbound, report.inbound) if flow is not None]
    if not report.connected or outcome not in SWALLOWED or not any(f.may_be_empty for f in flows):
        return None
    segment = report.segment_bytes
    most_bytes = segment + MOST_HEADER_BYTES if segment else BEYOND_ANY_BYTES
    try:
        mtu = find_mtu(ends.far.address, most_bytes, should_stop)
    except (IcmpNotPermitted, OSError):
        return None
    if mtu is None or not mtu.is_hole:
        return None
    # What passes back was not asked beyond what passes there, and it was data that came back.
    unsure = options.reverse and mtu.direction is Direction.THERE
    return replace(mtu, direction=Direction.EITHER) if unsure else mtu


@dataclass(frozen=True)
class _Ran:
    report: Iperf3Report
    pings: EchoSeries | None
    late: bool
    stopped: bool
    limit_s: float
    test_s: float


def _run(
    iperf3: Iperf3,
    ends: Ends,
    options: Options,
    idle_rtt_ms: float | None,
    should_stop: Callable[[], bool],
) -> _Ran:
    """Run the client with pings beside it; nothing of it is left afterwards."""
    limit_s, begun = deadline_s(options, idle_rtt_ms), time.monotonic()
    client = Tool(client_argv(iperf3, ends, options, idle_rtt_ms))
    pings = _start_pings(ends.far.address, options, idle_rtt_ms)
    ended = late = False
    try:
        ended = client.pump(begun + limit_s, should_stop=should_stop)
        late = not ended and time.monotonic() >= begun + limit_s
        test_s = time.monotonic() - begun
        if not ended:
            client.interrupt()  # it prints the intervals that it has
    finally:
        client.kill()
        if not ended:
            pings.stop()
    report = parse_report(
        client.stdout, client.stderr, udp=options.udp, reverse=options.reverse, bidir=options.bidir
    )
    # Of bytes that were through sooner, echoes after them would be idle ones.
    if test_s < pings.end_s or report.outcome not in WHOLE:
        pings.stop()
    stopped = not ended and not late
    return _Ran(report, pings.series(), late, stopped, limit_s, test_s)


def client_argv(
    iperf3: Iperf3, ends: Ends, options: Options, idle_rtt_ms: float | None
) -> list[str]:
    """Return the command of the client; every value is a number or was checked by the options."""
    connect_ms = 1000 * (CONNECT_S + 2 * rtt_s(idle_rtt_ms))
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
    """
    Ping from the end of TCP's slow start until the last replies are due at the end of the data.

    So a lost echo does not make the test longer, nor its leases held for longer.
    """
    # An RTT that is not known is taken for small here: pings before the data would be idle ones.
    to_data_s = ROUND_TRIPS_TO_DATA * (idle_rtt_ms or 0.0) / 1000
    loaded_s = _loaded_s(options)
    begin_s = min(loaded_s * SLOW_START_SHARE, SLOW_START_MAX_S)
    wait_s = min(max(loaded_s * WAIT_SHARE, MIN_WAIT_S), MAX_WAIT_S)
    end_s = max(loaded_s - wait_s, loaded_s * MIN_END_SHARE)
    data_s = to_data_s + options.omit_s
    return LoadedRtt(address, begin_s=data_s + begin_s, end_s=data_s + end_s, wait_s=wait_s)


def _loaded_s(options: Options) -> float:
    """Return how long data flow, where that is known: bytes without a rate may be through soon."""
    if options.bytes_limit is None or options.bitrate_mbps is None:
        return options.duration_s
    return min(options.duration_s, options.bytes_limit * 8 / 1e6 / options.bitrate_mbps)
