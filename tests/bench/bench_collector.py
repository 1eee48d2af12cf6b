"""
How fast the collector drains the stream, beside the shortest loop that does the same work.

The bare loop: XREADGROUP 1000, decode, msgpack, csv.writer, fsync, XACK; no checks, no cursor.
Run: python tests/bench/bench_collector.py [--results 1000000] [--server PATH]
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import msgpack
import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samples import fields_of

from coordinator.collect.collector import Collector
from coordinator.collect.csvfile import HEADER
from coordinator.collect.groups import default_group
from coordinator.embedded import embedded_server
from worker.model.csv_columns import CSV_COLUMNS, DETAIL_COLUMNS
from worker.wire import keyspace
from worker.wire.connection.server import connect

#: The ratio is measured over this many results, as often as there are repetitions.
RATIO_RESULTS = 100_000
BARE_COUNT = 1000
#: What is new in the first rows (buffers, arenas) is no growth.
WARM_ROWS = 50_000


def main() -> None:
    arguments = _arguments()
    if arguments.drain:
        _drain_and_tell_memory(*arguments.drain)
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Path(folder)
        with embedded_server(place, binary=arguments.server) as server:
            connection = connect(server.url)
            print(f"server {connection.info('server')['redis_version']}")
            _fill(connection, RATIO_RESULTS)
            _compare(connection, place, arguments.repetitions)
            _fill(connection, arguments.results - RATIO_RESULTS)
            _memory(connection, server.url, place)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--server", type=Path)
    parser.add_argument("--drain", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def _fill(connection: redis.Redis, count: int) -> None:
    some = [fields_of(number) for number in range(700)]
    pipeline = connection.pipeline(transaction=False)
    for number in range(count):
        pipeline.xadd(keyspace.RESULTS, some[number % len(some)])
        if number % 200 == 199:
            pipeline.execute()
    pipeline.execute()


def _compare(connection: redis.Redis, folder: Path, repetitions: int) -> None:
    rates: dict[str, list[float]] = {"bare loop": [], "collector": []}
    loops: dict[str, Callable[[redis.Redis, Path], None]] = {"bare loop": bare, "collector": ours}
    for repetition in range(repetitions):
        for name, loop in loops.items():
            path = folder / f"{name.replace(' ', '-')}-{repetition}.csv"
            gc.collect()
            connection.config_resetstat()
            begun = time.perf_counter()
            loop(connection, path)
            rates[name].append(RATIO_RESULTS / (time.perf_counter() - begun))
            assert _lines(path) == RATIO_RESULTS + 1
            connection.xgroup_destroy(keyspace.RESULTS, default_group(path))
            if repetition == repetitions - 1:
                _tell_server_cost(connection, name)
    for name, found in rates.items():
        print(f"{name:10} {median(found):8.0f} results/s  ({min(found):.0f}-{max(found):.0f})")
    pairs = zip(rates["collector"], rates["bare loop"], strict=True)
    print(f"ratio      {median(mine / other for mine, other in pairs):8.2f}")


def ours(connection: redis.Redis, path: Path) -> None:
    """Drain with the collector."""
    Collector(connection, path).drain()


def bare(connection: redis.Redis, path: Path) -> None:
    """Drain with the shortest loop."""
    group = default_group(path)
    connection.xgroup_create(keyspace.RESULTS, group, "0")
    with path.open("w", newline="") as file:
        file.write(HEADER.decode())
        writer = csv.writer(file, lineterminator="\n")
        while True:
            reply: Any = connection.xreadgroup(
                group, "bench", {keyspace.RESULTS: ">"}, count=BARE_COUNT
            )
            if not reply:
                return
            entries = reply[0][1]
            for stream_id, fields in entries:
                detail = msgpack.unpackb(fields[b"detail"])
                text = {k.decode(): v.decode() for k, v in fields.items() if k != b"detail"}
                writer.writerow(
                    [
                        text["started_at"],
                        text["address"],
                        text.get("latency_ms"),
                        text.get("packet_loss_pct"),
                        text.get("throughput_mbps"),
                        text["source"],
                        text["target"],
                        text["probe"],
                        text["run"],
                        text["outcome"],
                        text["error"],
                        *(detail.get(name) for name in DETAIL_COLUMNS),
                        stream_id.decode(),
                    ]
                )
            file.flush()
            os.fsync(file.fileno())
            connection.xack(keyspace.RESULTS, group, *(stream_id for stream_id, _ in entries))


def _tell_server_cost(connection: redis.Redis, name: str) -> None:
    for command, spent in connection.info("commandstats").items():
        if command.partition("_")[2].startswith("x") and spent["calls"] > 10:
            print(
                f"{name:10} {command.partition('_')[2]}: {spent['calls']} calls, "
                f"{float(spent['usec_per_call']) / 1000:.3f} ms each"
            )


def _memory(connection: redis.Redis, url: str, folder: Path) -> None:
    count = connection.xlen(keyspace.RESULTS)
    begun = time.perf_counter()
    program = [sys.executable, __file__, "--drain", url, str(folder / "all.csv")]
    told = subprocess.run(program, check=True, capture_output=True, text=True).stdout.split()
    took_s = time.perf_counter() - begun
    assert _lines(folder / "all.csv") == count + 1
    warm, end = (int(part) / 1024 for part in told)
    print(f"{count} results in {took_s:.1f} s: {count / took_s:.0f} results/s")
    print(f"RSS {warm:.1f} MiB after {WARM_ROWS} rows, {end:.1f} MiB at the end")


def _drain_and_tell_memory(url: str, path: str) -> None:
    seen: list[int] = []
    total = 0

    def note(rows: int) -> None:
        nonlocal total
        total += rows
        if total >= WARM_ROWS and not seen:
            seen.append(_rss_kib())

    Collector(connect(url), Path(path), on_commit=note).drain()
    print(seen[0] if seen else _rss_kib(), _rss_kib())


def _rss_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        first = file.readline()
        assert first.decode().strip().split(",") == list(CSV_COLUMNS)
        return 1 + sum(1 for _ in file)


if __name__ == "__main__":
    main()
