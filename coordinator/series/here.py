"""
Measures the rounds of a test from here, and says when each is due.

Every round begins at its place on the test's own clock; one that could not begin in time is left
out, and never made up for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from coordinator.series.options import SeriesOptions
from coordinator.series.series import Round
from worker.model.measurement import Outcome
from worker.model.names import NodeName, RunId
from worker.model.plan import PlannedNode, TargetNode
from worker.probes import ping
from worker.probes.interception.interception import Beside, marked
from worker.probes.iperf3 import client
from worker.probes.iperf3.record import Ends, findings
from worker.probes.iperf3.tool import NOT_THERE, Iperf3

ShouldStop = Callable[[], bool]

#: Name of the run in records of a test from here, which is no run of the mesh.
HERE_RUN = RunId("test")
#: Where an iperf3 server listens by default.
IPERF3_PORT = 5201
#: How often `should_stop` is asked.
STOP_CHECK_S = 0.1


@dataclass
class Ticks:
    """When rounds are due: every interval from the first one on; `next` is due next."""

    options: SeriesOptions
    clock: Callable[[], float] = time.monotonic
    next: int = 0
    begun: float = field(init=False)

    def __post_init__(self) -> None:
        """Begin now."""
        self.begun = self.clock()

    @property
    def over(self) -> bool:
        """No round is left."""
        return self.next >= self.options.rounds

    @property
    def left_s(self) -> float:
        """Seconds until the next round is due; not above 0 when it is."""
        return self.begun + self.next * self.options.interval_s - self.clock()

    def take(self) -> int | None:
        """Take the round that begins now; None when even the last one's time has passed."""
        passed = (self.clock() - self.begun) / self.options.interval_s
        # Up to half an interval late it is that round; later it is the next one.
        number = max(self.next, math.floor(passed + 0.5))
        self.next = number + 1
        return number if number < self.options.rounds else None

    def wait(self, should_stop: ShouldStop) -> int | None:
        """Wait for the next round and take it; None at the end, or when stopped."""
        while not self.over and not should_stop():
            if self.left_s <= 0:
                return self.take()
            time.sleep(min(self.left_s, STOP_CHECK_S))
        return None


def from_here(
    source: NodeName,
    target: TargetNode,
    options: SeriesOptions,
    *,
    iperf3: Iperf3 = NOT_THERE,
    port: int = IPERF3_PORT,
    should_stop: ShouldStop,
) -> Iterator[Round]:
    """
    Yield rounds as they are measured.

    Consume it in the main thread: iperf3 ends with the thread that started it.

    Args:
        source: This machine's name in the records.
        target: With a literal address.
        port: Where the target's iperf3 server listens.
        should_stop: Asked a few times a second; a round that it interrupts is not yielded.
    """
    ticks = Ticks(options)
    ends = Ends(run=HERE_RUN, near=PlannedNode(name=source, address=""), far=target, port=port)
    # Beside the server's port, which an odd client may disturb.
    beside = (target.address, port - 1 or port + 1)
    while (number := ticks.wait(should_stop)) is not None:
        looked = Beside([] if options.throughput is None else [beside])
        for echoes in ping.measure(HERE_RUN, source, [target], options.ping, should_stop):
            test, trips = None, echoes.round_trips
            if options.throughput is not None and not should_stop():
                if not looked.wait(should_stop):
                    return
                sign = looked.sign(beside)
                if sign.error:  # something else answers for the target
                    tests = findings(ends, options.throughput, Outcome.INTERCEPTED, sign.error)
                else:
                    tests = client.measure(
                        ends,
                        options.throughput,
                        iperf3=iperf3,
                        idle_rtt_ms=trips.rtt_median_ms if trips else None,
                        should_stop=should_stop,
                    )
                test = None if tests[0].outcome is Outcome.CANCELLED else marked(tests[0], sign)
            yield Round(number=number, ping=echoes, throughput=test)
