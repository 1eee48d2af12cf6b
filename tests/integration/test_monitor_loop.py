"""The loop and PTZJEPA's functions with real probes to this machine, a file and a Redis."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from missing import missing
from waiting import wait_until

from coordinator.results import results
from worker.model.csv_columns import CSV_COLUMNS
from worker.model.measurement import Measurement, Outcome
from worker.monitor import (
    NetworkMonitor,
    check_throughput,
    configure,
    guard,
    log_network_metrics,
    measure_latency,
    process,
    save_network_stats_to_csv,
    tagging,
    timeit,
)
from worker.probes.icmp.engine import icmp_capability
from worker.wire import keyspace

pytestmark = pytest.mark.redis

HOST = "127.0.0.1"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if icmp_capability() == "none" and os.environ.get("CI") != "true":
        pytest.skip("this user may not ping")
    monkeypatch.setattr(guard, "_logged_at", {})
    monkeypatch.setattr(tagging, "_cycle", None)
    monkeypatch.setattr(process, "_process", process._Process())
    yield
    process.recorder().close(5.0)


@pytest.fixture
def iperf3_port() -> Iterator[int]:
    """A standing iperf3 server, as a user starts one."""
    if shutil.which("iperf3") is None:
        missing("iperf3 is not installed")
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    argv = ["iperf3", "--server", "--bind", HOST, "--port", str(port)]
    server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), "the server listens")
        yield port
    finally:
        server.kill()
        server.wait()


def _listens(port: int) -> bool:
    """Look, without a connection: iperf3 would be busy with that one for a moment."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1:4:2] == [f"0100007F:{port:04X}", "0A"] for line in lines)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def published(connection: redis.Redis) -> list[Measurement]:
    return [measurement for _, measurement in results.read(connection)]


def test_row_and_stream_entry_agree(
    connection: redis.Redis, redis_url: str, tmp_path: Path, iperf3_port: int
) -> None:
    path = tmp_path / "persistence" / "network_metrics.csv"
    configure(redis_url=redis_url, source="cam-7")
    metrics = log_network_metrics(HOST, iperf3_port)
    save_network_stats_to_csv(path)
    save_network_stats_to_csv(str(path))
    assert process.recorder().publish_now(60)
    (row,), (entry,) = rows(path), published(connection)
    assert tuple(row) == CSV_COLUMNS
    assert [str(cell) if cell is not None else "" for cell in entry.to_row("")] == [*row.values()]
    assert (row["source"], row["target"], row["probe"]) == ("cam-7", HOST, "network")
    assert 0 < float(row["latency_ms"]) < 1000  # of ten echoes; a busy machine is slow
    assert row["packet_loss_pct"] == "0.0"
    assert float(row["throughput_mbps"]) == metrics["throughput_mbps"] > 1
    assert {name: row[name] for name in ("timestamp", "host")} == {
        name: metrics[name] for name in ("timestamp", "host")
    }


def test_single_questions(iperf3_port: int) -> None:
    latency_ms, mbps = measure_latency(HOST), check_throughput(HOST, iperf3_port)
    assert latency_ms is not None
    assert 0 < latency_ms < 1000
    assert mbps is not None
    assert mbps > 1


def test_nobody_listens_is_none(caplog: pytest.LogCaptureFixture) -> None:
    begun = time.monotonic()
    assert check_throughput(HOST, port=1) is None
    assert time.monotonic() - begun < 10


def test_a_name_that_does_not_resolve_has_a_row(tmp_path: Path) -> None:
    metrics = log_network_metrics("no-such-host.invalid", throughput=False)
    assert metrics["latency_ms"] is None
    save_network_stats_to_csv(tmp_path / "m.csv")
    assert rows(tmp_path / "m.csv")[0]["outcome"] == Outcome.UNRESOLVED.value


def test_a_days_work_in_short(connection: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    configure(redis_url=redis_url, source="cam-7", csv_path=path)

    @timeit("prepare_images")
    def prepare_images() -> None:
        pass

    with NetworkMonitor([HOST, "-c", "::1"], 300, every_cycles=2, count=2) as monitor:
        wait_until(lambda: path.exists() and len(rows(path)) == 3, "the first three rows are there")
        for number in range(1, 5):
            prepare_images()
            with monitor.activity("world_model"):
                monitor.cycle(number)
                wait_until(
                    lambda n=number: len(rows(path)) == 3 + n + n // 2 * 3,
                    f"the rows of cycle {number} are there",
                )  # type: ignore[misc]
    assert process.recorder().publish_now(60)
    found = published(connection)
    assert len(found) == len(rows(path)) == 3 + 4 + 2 * 3
    pings = [m for m in found if m.probe == "ping"]
    assert [m.detail.more.get("activity") for m in pings] == [None] * 3 + ["world_model"] * 6
    assert [m.detail.more.get("cycle") for m in pings] == [None] * 3 + [2] * 3 + [4] * 3
    assert [m.outcome for m in pings[:3] if m.target == "-c"] == [Outcome.UNRESOLVED]
    assert not connection.exists(keyspace.RUNS)
