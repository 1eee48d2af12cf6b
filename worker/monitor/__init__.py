"""
Network measurement inside another program, such as PTZJEPA's training loop.

    from worker.monitor import add_network_arguments, monitor_from_arguments

    monitor = monitor_from_arguments(args).start()
    with monitor.activity("world_model"):
        ...
    monitor.cycle(cycle_count)

Imports the standard library and ptzmesh's core dependencies only, works on Python 3.10, and never
raises into its host: what goes wrong is a log line. docs/ptzjepa/README.md shows where it goes.
"""

from worker.monitor.lockers.lockers import MultiLockerSystem
from worker.monitor.lockers.view import LockersView, read_lockers, watch_lockers
from worker.monitor.mounts.mounts import MeasuredMounts, measured_mounts
from worker.monitor.mounts.probing import probe_mount
from worker.monitor.network.loop import NetworkMonitor
from worker.monitor.network.network import (
    check_throughput,
    log_network_metrics,
    measure_latency,
    network_stats,
    save_network_stats_to_csv,
)
from worker.monitor.process import configure
from worker.monitor.ptzjepa.arguments import add_network_arguments, monitor_from_arguments
from worker.monitor.tagging import activity
from worker.monitor.timing import timeit

__all__ = [
    "LockersView",
    "MeasuredMounts",
    "MultiLockerSystem",
    "NetworkMonitor",
    "activity",
    "add_network_arguments",
    "check_throughput",
    "configure",
    "log_network_metrics",
    "measure_latency",
    "measured_mounts",
    "monitor_from_arguments",
    "network_stats",
    "probe_mount",
    "read_lockers",
    "save_network_stats_to_csv",
    "timeit",
    "watch_lockers",
]
