"""What one run of iperf3 measured, once read: plain values. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.model.detail import FlowNumbers
from worker.model.measurement import Outcome

#: Which end saw the intervals: iperf3 prints those of the end that runs the client.
Side = Literal["sender", "receiver"]

#: A sender whose data goes nowhere hands its kernel what the buffers of its connections take: some
#: 90 kB each.
BUFFERED_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Flow(FlowNumbers):
    """
    One direction of a test.

    Attributes:
        throughput_mbps: Goodput at the receiver, 10^6 bit/s.
        packet_loss_pct: Share of the packets whose fate is known that did not arrive (RFC 7680).
    """

    throughput_mbps: float | None = None
    packet_loss_pct: float | None = None

    @property
    def may_be_empty(self) -> bool:
        """Nothing that the receiver got is known of."""
        if self.bytes_received is not None:
            return self.bytes_received == 0
        return self.interval_bytes <= (BUFFERED_BYTES if self.intervals_at == "sender" else 0)


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
