"""
Round-trip time of a path while a throughput test loads it.

Runs the ICMP engine in a thread beside the test. Needs what `echo_socket` needs; without it there
is no loaded RTT, and the test is as good as before.
"""

from __future__ import annotations

import threading

from worker.model.options import PingOptions
from worker.probes.icmp.engine import EchoSeries, IcmpNotPermitted, echo_many

#: 33 echoes a second are 22 kbit/s each way.
MIN_INTERVAL_S = 0.03
MAX_ECHOES = 200


class LoadedRtt:
    """
    Pings one address over part of a test; start it once the test was started.

    Attributes:
        end_s: When the last echo is sent, in seconds from then.
    """

    def __init__(self, address: str, *, begin_s: float, end_s: float, wait_s: float) -> None:
        """
        Ping a literal address.

        Args:
            begin_s: In seconds from now, when the link is loaded, and TCP past its slow start.
            end_s: Likewise, when the last echo is sent.
            wait_s: Tmax of RFC 6673: a later reply is a loss.
        """
        self._address, self._begin_s, self.end_s = address, begin_s, end_s
        window_s = max(end_s - begin_s, MIN_INTERVAL_S)
        interval_s = max(MIN_INTERVAL_S, window_s / MAX_ECHOES)
        self._options = PingOptions(
            count=max(1, int(window_s / interval_s)),
            interval_s=interval_s,
            wait_s=wait_s,
            warm_up=False,
        )
        self._stopped = threading.Event()
        self._series: EchoSeries | None = None
        self._thread = threading.Thread(target=self._run, name="loaded-rtt", daemon=True)
        self._thread.start()

    def series(self) -> EchoSeries | None:
        """Wait for the last replies, up to `wait_s`; None when stopped or not permitted."""
        self._thread.join()
        return self._series

    def stop(self) -> None:
        """End it without a result, within the engine's next look at `should_stop`."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        if self._stopped.wait(self._begin_s):
            return
        try:
            series = echo_many([self._address], self._options, should_stop=self._stopped.is_set)
            self._series = next((each for _, each in series), None)
        except IcmpNotPermitted:
            return
