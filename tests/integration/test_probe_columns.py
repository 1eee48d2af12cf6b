"""The CSV columns that a probe fills are those that its row names."""

from __future__ import annotations

from csv import DictReader
from pathlib import Path

import pytest
import redis

from integration.nodes import cli, workers
from worker.model.probe import PROBES
from worker.probes.icmp.engine import icmp_capability
from worker.probes.iperf3.tool import find_iperf3

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping"),
    pytest.mark.skipif(bool(find_iperf3().fault), reason="no iperf3"),
]

#: Of every record: what it is of, and what is known of its source's clock.
OF_ALL = {
    *("timestamp", "host", "source", "target", "probe", "run_id", "outcome", "error", "stream_id"),
    *("clock_offset_ms", "clock_offset_uncertainty_ms", "hint"),
}
#: Filled by each of these; another may be empty where this machine had a free moment.
ALWAYS = {
    "ping": {"latency_ms", "packet_loss_pct", "rtt_p95_ms", "wake_ms", "reply_ttl", "host_limited"},
    "tcp": {"latency_ms", "packet_loss_pct", "rtt_p95_ms", "wake_ms"},
    "redis": {"latency_ms", "packet_loss_pct", "rtt_p95_ms", "jitter_mean_abs_ms"},
    "throughput": {"throughput_mbps", "sent_mbps", "retransmits", "bytes_received"},
    "udp": {"throughput_mbps", "packet_loss_pct", "jitter_rfc3550_ms", "out_of_order"},
}


def test_a_probe_fills_the_columns_of_its_row_and_no_others(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    csv = tmp_path / "mesh.csv"
    asked = [word for probe in PROBES for word in ("--probe", probe)]
    with workers(redis_url, connection, tmp_path, ["a", "b"]):
        done = cli(
            redis_url, "run", *asked, "-c", "40", "-i", "0.02", "-t", "1", "-b", "4M",
            "--csv", str(csv),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    filled: dict[str, set[str]] = {probe: set() for probe in PROBES}
    for row in DictReader(csv.read_text().splitlines()):
        filled[row["probe"]] |= {name for name, cell in row.items() if cell} - OF_ALL
    for probe, kind in PROBES.items():
        assert [name for name in filled[probe] if not kind.fills(name)] == [], probe
        assert filled[probe] >= ALWAYS[probe], probe
