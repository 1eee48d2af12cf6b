"""
What one run of iperf3 measured, once read: plain values, each None when it was not measured.

Pure. Numbers are the receiver's, except where a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.model.measurement import Outcome

#: Which end saw the intervals: iperf3 prints those of the end that runs the client.
Side = Literal["sender", "receiver"]

#: A sender whose data goes nowhere hands its kernel what the buffers of its connections take: some
#: 90 kB each.
BUFFERED_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """About one second of one direction, as the side that printed it saw it."""

    start_s: float
    end_s: float
    mbps: float
    retransmits: int | None
    omitted: bool


@dataclass(frozen=True, kw_only=True)
class Flow:
    """
    One direction of a test; each number None when it was not measured.

    Attributes:
        throughput_mbps: Goodput at the receiver, 10^6 bit/s.
        bytes_received: Data that the receiver got.
        elapsed_s: Time in which it got them, by its own clock.
        sent_mbps: What the sender handed to its kernel, 10^6 bit/s.
        bytes_sent: The same in bytes.
        retransmits: TCP segments sent again.
        congestion: The sender's congestion control.
        sent: UDP packets sent.
        received: UDP packets received.
        undecided: UDP packets of the last `UDP_WAIT_S` (1 s) that may still have been on the way.
        packet_loss_pct: Share of the packets whose fate is known that did not arrive (RFC 7680).
        jitter_rfc3550_ms: Smoothed one-way jitter at the receiver.
        out_of_order: UDP packets that came after a later one.
        intervals: In order, those of the omitted time too.
        intervals_at: Which end the intervals were seen at.
    """

    throughput_mbps: float | None = None
    bytes_received: int | None = None
    elapsed_s: float | None = None
    sent_mbps: float | None = None
    bytes_sent: int | None = None
    retransmits: int | None = None
    congestion: str | None = None
    sent: int | None = None
    received: int | None = None
    undecided: int | None = None
    packet_loss_pct: float | None = None
    jitter_rfc3550_ms: float | None = None
    out_of_order: int | None = None
    intervals: tuple[Interval, ...] = ()
    intervals_at: Side = "receiver"

    @property
    def may_be_empty(self) -> bool:
        """Nothing that the receiver got is known of."""
        if self.bytes_received is not None:
            return self.bytes_received == 0
        kept_bytes = BUFFERED_BYTES if self.intervals_at == "sender" else 0
        return sum(i.mbps * (i.end_s - i.start_s) for i in self.intervals) * 1e6 / 8 <= kept_bytes


@dataclass(frozen=True, kw_only=True)
class Iperf3Report:
    """
    One run of the client.

    Attributes:
        outcome: What became of it; `ok` means that every direction asked for has its throughput.
        error: One line for a person, empty when `ok`.
        version: Of the iperf3 that printed it.
        connected: The data's streams were there.
        segment_bytes: Data in a full TCP packet of this path, as the two ends agreed; None for UDP.
        outbound: Data from the client to the server, if asked for.
        inbound: Data from the server to the client, if asked for.
        cpu_near_pct: CPU time of the client's process, percent of one core.
        cpu_far_pct: The same of the server's.
    """

    outcome: Outcome
    error: str = ""
    version: str | None = None
    connected: bool = False
    segment_bytes: int | None = None
    outbound: Flow | None = None
    inbound: Flow | None = None
    cpu_near_pct: float | None = None
    cpu_far_pct: float | None = None
