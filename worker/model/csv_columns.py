"""The columns of the CSV: the first five are those of PTZJEPA's own file, in its order."""

from __future__ import annotations

#: A record's headline numbers.
NUMBERS = ("latency_ms", "packet_loss_pct", "throughput_mbps")
#: Columns of a CSV that ptzmesh began when its wire version was 1; one that is there goes on so.
_WIRE_1_DETAIL_COLUMNS = (
    *("sent", "received", "duplicates", "late", "refused", "wait_s"),
    *("rtt_min_ms", "rtt_mean_ms", "rtt_median_ms", "rtt_p95_ms", "rtt_max_ms", "rtt_stddev_ms"),
    *("jitter_mean_abs_ms", "jitter_rfc3550_ms", "out_of_order", "sent_mbps", "retransmits"),
    *("bytes_received", "elapsed_s", "rtt_loaded_median_ms", "host_limited", "send_lag_max_ms"),
    *("read_lag_max_ms", "receive_drops", "times_refused", "activity", "operation"),
    "clock_offset_ms",
)
#: Columns taken from `detail` by name: statistics that a reader of the CSV wants in cells.
DETAIL_COLUMNS = (
    *_WIRE_1_DETAIL_COLUMNS,
    *("clock_offset_uncertainty_ms", "wake_ms", "reply_ttl", "unverified", "hint"),
)
_FIRST_COLUMNS = (
    *("timestamp", "host", *NUMBERS),
    *("source", "target", "probe", "run_id", "outcome", "error"),
)
CSV_COLUMNS = (*_FIRST_COLUMNS, *DETAIL_COLUMNS, "stream_id")
WIRE_1_CSV_COLUMNS = (*_FIRST_COLUMNS, *_WIRE_1_DETAIL_COLUMNS, "stream_id")
