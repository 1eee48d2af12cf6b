"""
`NetworkMonitor`: measures hosts beside the host program, at intervals or at its cycles.

Measuring, the file and Redis are all left to the monitor's thread: the methods that the host calls
set a flag and return.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from worker.model.errors import ConfigError
from worker.monitor import tagging
from worker.monitor.guard import log_once, never_raises
from worker.monitor.network.hosts import MAX_HOSTS
from worker.monitor.network.network import COUNT, joined, keep, measure_hosts, measure_throughput
from worker.monitor.process import recorder

DEFAULT_INTERVAL_S = 300.0
MIN_INTERVAL_S = 1.0
#: Nodes that were started together do not measure together for long.
JITTER = 0.1
#: For its last measurement, the file and Redis, as it ends.
STOP_DEADLINE_S = 3.0


class NetworkMonitor:
    """
    Measures until it is stopped; use as a context manager, or `start` and `stop` it.

    In a forked child it is stopped: the parent's goes on, and hosts are not measured twice.

    Attributes:
        hosts: What is measured.
    """

    @never_raises(lambda: None)
    def __init__(
        self,
        hosts: Iterable[str],
        interval_s: float = DEFAULT_INTERVAL_S,
        *,
        every_cycles: int | None = None,
        throughput: bool = False,
        count: int = COUNT,
        csv_path: Path | str | None = None,
    ) -> None:
        """
        Describe what is measured; nothing is until `start`.

        Args:
            hosts: Host names or addresses; one that is invalid gets records that say so.
            interval_s: Seconds between two measurements, give or take a tenth; `math.inf` leaves
                it to the cycles.
            every_cycles: Measure at each n-th cycle as well; None does not.
            throughput: Run an iperf3 test of up to 10 MB to each host as well.
            count: Echoes to each host.
            csv_path: File of the records; None is the process's own.
        """
        # First, so that the methods work whatever is wrong with the arguments.
        self.hosts: tuple[str, ...] = ()
        self.interval_s, self.every_cycles = DEFAULT_INTERVAL_S, every_cycles
        self.throughput, self.count = throughput, count
        self._csv_path = None if csv_path is None else Path(csv_path)
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._measure_asked = self._save_asked = False
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self.interval_s = _interval(interval_s)
        self.hosts = _hosts(hosts)

    def start(self) -> NetworkMonitor:
        """Begin to measure; the first time is now."""
        self._start()
        return self

    @never_raises(lambda: None)
    def _start(self) -> None:
        if self._thread is not None or os.getpid() != self._pid:
            return
        if not self.hosts:
            log_once("no hosts", "monitor: there is no host to measure; records are kept and saved")
        self._thread = threading.Thread(target=self._work, name="ptzmesh-monitor", daemon=True)
        self._thread.start()

    @never_raises(lambda: None)
    def stop(self) -> None:
        """End, and save what is recorded; waits `STOP_DEADLINE_S` at most."""
        if self._thread is None or os.getpid() != self._pid:
            return
        thread, self._thread = self._thread, None
        give_up_at = time.monotonic() + STOP_DEADLINE_S
        self._stopping.set()
        self._wake.set()
        thread.join(STOP_DEADLINE_S)
        recorder().publish_now(max(0.0, give_up_at - time.monotonic()))

    def __enter__(self) -> NetworkMonitor:
        """Start."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop; what the block raised goes on."""
        self.stop()

    @never_raises(lambda: None)
    def cycle(self, number: int) -> None:
        """Note that the host's cycle of this number has ended; the records are saved beside."""
        tagging.set_cycle(number)
        if os.getpid() != self._pid:
            return
        if self.every_cycles and number % self.every_cycles == 0:
            self._measure_asked = True
        self._save_asked = True
        self._wake.set()

    def activity(self, name: str) -> AbstractContextManager[None]:
        """Tag what is recorded within the block with what the host does there."""
        return tagging.activity(name)

    @never_raises(lambda: None)
    def _work(self) -> None:
        due_at = time.monotonic()
        while not self._stopping.is_set():
            if self._measure_asked or time.monotonic() >= due_at:
                self._measure_asked = False
                due_at = time.monotonic() + self._pause_s()
                self._measure()
                self._save_asked = True
            if self._save_asked:
                self._save_asked = False
                self._save()
            if not self._measure_asked:
                left_s = max(0.0, due_at - time.monotonic())
                self._wake.wait(min(left_s, threading.TIMEOUT_MAX))
            self._wake.clear()
        self._save()

    def _pause_s(self) -> float:
        # Not the module's generator, which the host may have seeded.
        return self.interval_s * random.SystemRandom().uniform(1 - JITTER, 1 + JITTER)

    @never_raises(lambda: None)
    def _measure(self) -> None:
        stopping = self._stopping.is_set
        for pinged in measure_hosts(self.hosts, count=self.count, should_stop=stopping):
            wanted = self.throughput and not stopping()
            tested = measure_throughput(pinged.target, should_stop=stopping) if wanted else None
            keep(pinged.target, joined(pinged, tested))

    @never_raises(lambda: None)
    def _save(self) -> None:
        recorder().save_csv(self._csv_path)


def _interval(asked: float) -> float:
    if asked >= MIN_INTERVAL_S and not math.isnan(asked):
        return asked
    text = "monitor: interval (%s) must be %s s or more; %s s is used"
    log_once(f"interval/{asked}", text, asked, MIN_INTERVAL_S, DEFAULT_INTERVAL_S)
    return DEFAULT_INTERVAL_S


def _hosts(asked: Iterable[str]) -> tuple[str, ...]:
    """Drop repetitions; a single string is a mistake that would be one host a letter."""
    if isinstance(asked, str):
        raise ConfigError(f"hosts ({asked[:80]!r}) must be a list of hosts")
    unique = tuple(dict.fromkeys(map(str, asked)))
    if len(unique) > MAX_HOSTS:
        log_once(
            "hosts", "monitor: %d hosts are too many; the first %d are", len(unique), MAX_HOSTS
        )
    return unique[:MAX_HOSTS]
