"""
What `iperf3 --json` printed, as numbers that can be trusted: pure and tolerant.

Whatever the bytes are, the answer is an `Iperf3Report`. Of the output only the first JSON object
counts; a number that is missing, NaN, infinite, negative or absurd is absent; `iperf3 -J` exits 0
when it failed, so that the top-level `error` decides. Numbers are the receiver's, except where a
name says otherwise. The names in JSON are those of iperf3 3.7 to 3.21.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from worker.model.detail import Interval
from worker.model.measurement import Outcome
from worker.probes.iperf3.errors import classify, first_line
from worker.probes.iperf3.report import Flow, Iperf3Report, Side

#: 64 streams for an hour print some 60 MB; what a test of ours prints is below 3 MB.
MAX_OUTPUT_BYTES = 16 * 1024 * 1024
#: Faster than any link: 10 Tbit/s.
MAX_MBPS = 1e7
MAX_SECONDS = 1e6
MAX_COUNT = 2**62
#: Tmax of RFC 7680: a packet sent longer ago than this, and not seen, is lost.
UDP_WAIT_S = 1.0
#: A rate over less time than this says nothing.
MIN_SECONDS = 0.001

VERSION = re.compile(r"iperf (\d{1,3}(?:\.\d{1,4}){0,3}\S{0,12})")
MODULE = re.compile(r"[a-z][a-z0-9_-]{0,14}")

Json = Mapping[str, Any]


def parse_report(
    output: bytes,
    stderr: bytes = b"",
    *,
    udp: bool = False,
    reverse: bool = False,
    bidir: bool = False,
) -> Iperf3Report:
    """Read what the client printed, whose stderr says why where there is no JSON; never raises."""
    document = _first_object(output)
    if document is None:
        text = first_line(stderr.decode("utf-8", "replace"))
        if text:
            return Iperf3Report(outcome=classify(text, measured=False), error=text)
        what = f"is no whole JSON object ({len(output)} bytes)" if output else "is empty"
        return Iperf3Report(outcome=Outcome.BAD_REPLY, error=f"the output of iperf3 {what}")
    failure = document.get("error")
    complete = failure is None
    read = partial(_flow, document, udp=udp, complete=complete, bidir=bidir)
    outbound = None if reverse else read("", inbound=False)
    inbound = None
    if reverse or bidir:
        inbound = read("_bidir_reverse" if bidir else "", inbound=True)
    flows = [flow for flow in (outbound, inbound) if flow is not None]
    outcome, error = _verdict(document, failure, flows)
    start, cpu = _part(document, "start"), _part(document, "end", "cpu_utilization_percent")
    return Iperf3Report(
        outcome=outcome,
        error=error,
        version=_version(document),
        connected=bool(_array(start.get("connected"))),
        segment_bytes=None if udp else _count(start, "tcp_mss_default"),
        outbound=outbound,
        inbound=inbound,
        # Of a test that failed, the other end's share is a literal 0.
        cpu_near_pct=_real(cpu, "host_total", 1e5) if complete else None,
        cpu_far_pct=_real(cpu, "remote_total", 1e5) if complete else None,
    )


def _first_object(output: bytes) -> Json | None:
    start = output.find(b"{")
    if start < 0 or len(output) > MAX_OUTPUT_BYTES:
        return None
    decoder = json.JSONDecoder(parse_constant=lambda _: None)
    try:
        document, _ = decoder.raw_decode(output[start:].decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return _object(document)


def _verdict(document: Json, failure: Any, flows: Sequence[Flow]) -> tuple[Outcome, str]:
    if failure is not None:
        reason = first_line(failure) if isinstance(failure, str) else ""
        text = reason or "iperf3 failed and does not say why"
        return classify(text, measured=any(flow.intervals for flow in flows)), text
    if any(flow.throughput_mbps is None for flow in flows):
        if any(flow.intervals for flow in flows) or _part(document, "end"):
            return Outcome.BAD_REPLY, "iperf3 does not say what the receiver got"
        return Outcome.BAD_REPLY, "iperf3 measured nothing and does not say why"
    if any(flow.received == 0 for flow in flows):
        return Outcome.NO_REPLY, "none of the UDP packets arrived"
    if any(flow.bytes_received == 0 for flow in flows):
        return Outcome.BAD_REPLY, "the receiver got no data"
    return Outcome.OK, ""


def _version(document: Json) -> str | None:
    match = VERSION.match(str(_part(document, "start").get("version")))
    return match[1] if match else None


def _flow(
    document: Json, suffix: str, *, inbound: bool, udp: bool, complete: bool, bidir: bool
) -> Flow:
    """Read one direction; of a test that failed only its intervals, as its sums hold literal 0s."""
    side: Side = "receiver" if inbound else "sender"
    intervals = _intervals(document, f"sum{suffix}")
    flow = partial(Flow, intervals=intervals, intervals_at=side)
    end = _part(document, "end")
    got, sent = _part(end, f"sum_received{suffix}"), _part(end, f"sum_sent{suffix}")
    if not complete or (bidir and "sum_received_bidir_reverse" not in end):
        # Before 3.11 both directions of --bidir have the same names, and one hides the other.
        return flow()
    if udp:
        out_of_order = _out_of_order(end, inbound)
        return _udp_flow(document, got, sent, partial(flow, out_of_order=out_of_order))
    return flow(
        throughput_mbps=_rate_mbps(got),
        bytes_received=_count(got, "bytes"),
        elapsed_s=_real(got, "seconds", MAX_SECONDS),
        sent_mbps=_rate_mbps(sent),
        bytes_sent=_count(sent, "bytes"),
        retransmits=_count(sent, "retransmits"),
        congestion=_congestion(end, "receiver" if bidir and inbound else "sender"),
    )


def _congestion(end: Json, end_name: Side) -> str | None:
    name = end.get(f"{end_name}_tcp_congestion")
    return name if isinstance(name, str) and MODULE.fullmatch(name) else None


def _udp_flow(document: Json, got: Json, sent: Json, flow: Callable[..., Flow]) -> Flow:
    """
    Read one UDP direction.

    Received packets are counted from the receiver's bytes: its own count of losses is 0 when a 3.20
    client asks an older server, and holds the omitted time's losses in 3.12. Before 3.11 there is
    only `sum`, whose bytes are the sender's.
    """
    start = _part(document, "start", "test_start")
    size = _count(start, "blksize")
    if not got:
        return _old_udp_flow(
            _part(document, "end", "sum"), None if start.get("omit") else size, flow
        )
    total, seen, data = _count(sent, "packets"), _count(got, "packets"), _count(got, "bytes")
    received = data // size if size and data is not None else None
    elapsed_s = _real(got, "seconds", MAX_SECONDS)
    undecided, loss_pct = _udp_loss(total, seen, received, elapsed_s)
    return flow(
        throughput_mbps=_rate_mbps(got),
        bytes_received=data,
        elapsed_s=elapsed_s,
        sent_mbps=_rate_mbps(sent),
        bytes_sent=_count(sent, "bytes"),
        sent=total,
        received=received,
        undecided=undecided,
        packet_loss_pct=loss_pct,
        jitter_rfc3550_ms=_real(got, "jitter_ms", 1e6) if received and received > 1 else None,
    )


def _udp_loss(
    sent: int | None, seen: int | None, received: int | None, elapsed_s: float | None
) -> tuple[int | None, float | None]:
    """
    Return how many packets are undecided, and the loss among the others in percent.

    `seen` is the last one, by number, of which the receiver knows.

    >>> _udp_loss(1000, 990, 891, 10.0)
    (10, 10.0)
    >>> _udp_loss(1000, 500, 500, 10.0)
    (100, 44.44444444444444)
    >>> _udp_loss(1000, 0, 0, 1.0)
    (0, 100.0)
    """
    if not sent or not elapsed_s or seen is None or received is None:
        return None, None
    if received == 0:
        return 0, 100.0
    tail = max(sent - seen, 0)
    undecided = min(tail, math.ceil(sent * min(1.0, UDP_WAIT_S / elapsed_s)))
    known = max(sent - undecided, received)
    return undecided, 100.0 * (known - received) / known


def _old_udp_flow(both: Json, size: int | None, flow: Callable[..., Flow]) -> Flow:
    total, lost = _count(both, "packets"), _count(both, "lost_packets")
    elapsed_s = _real(both, "seconds", MAX_SECONDS)
    if not total or lost is None or not size or lost > total or not elapsed_s:
        return flow(out_of_order=None)
    received = total - lost
    return flow(
        throughput_mbps=_mbps(received * size, elapsed_s),
        bytes_received=received * size,
        elapsed_s=elapsed_s,
        sent=total,
        received=received,
        packet_loss_pct=100.0 * lost / total,
        jitter_rfc3550_ms=_real(both, "jitter_ms", 1e6) if received > 1 else None,
    )


def _out_of_order(end: Json, inbound: bool) -> int | None:
    counts = [
        _count(udp, "out_of_order")
        for udp in (_part(_object(stream), "udp") for stream in _array(end.get("streams")))
        if udp.get("sender") is not inbound
    ]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _intervals(document: Json, name: str) -> tuple[Interval, ...]:
    """Read the series; a client that is cut off prints its last interval twice."""
    kept: list[Interval] = []
    for item in _array(document.get("intervals")):
        part = _part(_object(item), name)
        start_s, end_s = (_real(part, key, MAX_SECONDS) for key in ("start", "end"))
        mbps, omitted = _rate_mbps(part), part.get("omitted") is True
        if start_s is None or end_s is None or mbps is None:
            continue
        last = kept[-1] if kept else None
        # After the omitted time the clock starts again at 0.
        if last and last.omitted == omitted and start_s < last.end_s - MIN_SECONDS:
            continue
        kept.append(Interval(start_s, end_s, mbps, _count(part, "retransmits"), omitted))
    return tuple(kept)


def _rate_mbps(part: Json) -> float | None:
    data, seconds = _count(part, "bytes"), _real(part, "seconds", MAX_SECONDS)
    return None if data is None or seconds is None else _mbps(data, seconds)


def _mbps(data: int, seconds: float) -> float | None:
    if seconds < MIN_SECONDS:
        return None
    mbps = data * 8 / seconds / 1e6
    return mbps if mbps <= MAX_MBPS else None


def _count(part: Json, name: str) -> int | None:
    value = part.get(name)
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None


def _real(part: Json, name: str, high: float) -> float | None:
    value: Any = part.get(name)
    return float(value) if type(value) in (int, float) and 0 <= value <= high else None


def _part(document: Json, *names: str) -> Json:
    """Return the object at the end of these names; an empty one where it is missing."""
    for name in names:
        document = _object(document.get(name))
    return document


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _array(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
