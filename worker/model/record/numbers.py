"""
The numbers that stand for names in a record of wire version 2.

They are fixed with the version: no number changes its name, and what is added within the version is
written by name.
"""

from __future__ import annotations

from worker.model.detail import DECIMALS

#: Of the record itself; a detail of the same name, as a program may have, is written by name.
FORM, STARTED_AT, ADDRESS, ERROR = 0, 1, 2, 3
RTTS_MS = 4

#: The names of all else, from number 4 on.
_NAMES = (
    *("rtts_ms", "elapsed_s", "interval_mean_s", "send_lag_max_ms", "read_lag_max_ms", "wake_ms"),
    *("reply_ttl", "clock_offset_ms", "clock_offset_uncertainty_ms", "unverified", "hint"),
    *("sent", "received", "rtt_min_ms", "rtt_mean_ms", "rtt_median_ms", "rtt_p95_ms"),
    *("rtt_max_ms", "rtt_stddev_ms", "jitter_mean_abs_ms", "wait_s", "interval_s"),
    *("times_refused", "duplicates", "late", "errors", "error_kind", "damaged", "refused"),
    *("size_bytes", "answered_by", "receive_drops", "host_limited", "socket", "accepted"),
    *("refusals", "port", "locker_cycle_median_ms", "locker_cycle_max_ms", "locker_cycles"),
    *("last_error", "bytes_received", "sent_mbps", "bytes_sent", "retransmits", "congestion"),
    *("undecided", "jitter_rfc3550_ms", "out_of_order", "intervals", "intervals_at"),
    *("duration_s", "omit_s", "parallel", "bidir", "bitrate_mbps", "bytes_limit", "dscp"),
    *("rtt_idle_median_ms", "rtt_loaded_median_ms", "rtt_loaded_max_ms", "rtt_loaded_sent"),
    *("rtt_loaded_received", "host_limits", "deadline_s", "test_s", "cpu_source_pct"),
    *("cpu_target_pct", "iperf3_source", "iperf3_target", "connected_by", "interval_columns"),
    *("streams_connected", "path_mtu_bytes", "other_way_bytes"),
)


def _unit_ns(name: str) -> float:
    """Return how many nanoseconds its unit has; 0 where it is no time."""
    return next((10.0**count for end, count in DECIMALS.items() if name.endswith(end)), 0.0)


#: Number → name, and the nanoseconds of its unit, 0 where it is no time.
NAMES = {number: (name, _unit_ns(name)) for number, name in enumerate(_NAMES, RTTS_MS)}
NUMBERS = {name: number for number, (name, _) in NAMES.items()}
