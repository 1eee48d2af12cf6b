"""The last metrics of each host: PTZJEPA's `network_stats`, but bounded and thread-safe."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from threading import RLock
from typing import Any

from worker.model.text import iso_utc
from worker.monitor.network.hosts import MAX_HOSTS

#: A day of one measurement every five minutes.
MAX_METRICS = 288

Metrics = dict[str, Any]
NUMBERS = ("latency_ms", "packet_loss_pct", "throughput_mbps")


def no_metrics() -> Metrics:
    """Return metrics without numbers: each field is there, as the host may ask for any."""
    now = iso_utc(datetime.now(timezone.utc))
    return {"timestamp": now, "host": "", **dict.fromkeys(NUMBERS)}


class NetworkStats(Mapping[str, list[Metrics]]):
    """
    Host → its last metrics, oldest first; what is given out is a copy.

    As in the `defaultdict` that it stands for, a host that was never measured has an empty list.
    """

    def __init__(self, max_hosts: int = MAX_HOSTS, max_metrics: int = MAX_METRICS) -> None:
        """Keep the newest `max_metrics` of each of the `max_hosts` hosts measured last."""
        self._max_hosts, self._max_metrics = max_hosts, max_metrics
        self._lock = RLock()
        self._metrics: dict[str, deque[Metrics]] = {}

    def add(self, host: str, metrics: Metrics) -> None:
        """Add the metrics of one measurement."""
        with self._lock:
            kept = self._metrics.pop(host, None) or deque(maxlen=self._max_metrics)
            self._metrics[host] = kept
            kept.append(dict(metrics))
            while len(self._metrics) > self._max_hosts:
                del self._metrics[next(iter(self._metrics))]

    def __getitem__(self, host: str) -> list[Metrics]:
        """Return the metrics of one host."""
        with self._lock:
            return [dict(metrics) for metrics in self._metrics.get(host, ())]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the hosts measured, the latest last."""
        with self._lock:
            return iter(list(self._metrics))

    def __len__(self) -> int:
        """Count the hosts."""
        return len(self._metrics)

    def __contains__(self, host: object) -> bool:
        """Whether a host was measured."""
        return host in self._metrics
