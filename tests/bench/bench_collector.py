"""
How fast the collector drains the stream, beside the shortest loop and the collector of before.

The bare loop reads entries as they were before (`before`): XREADGROUP 1000, decode, msgpack,
csv.writer, fsync, XACK; no checks, no cursor. The collector reads the same measurements in today's
form. All take turns, each as a process of its own, with redis-py's parser in C and without.
Run: python tests/bench/bench_collector.py [--results 1000000] [--server PATH]
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import before
import msgpack
import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samples import measurement

from coordinator.collect.collector import Collector
from coordinator.collect.csvfile import HEADER
from coordinator.collect.groups import default_group
from coordinator.embedded import embedded_server
from worker.model.csv_columns import CSV_COLUMNS, DETAIL_COLUMNS
from worker.model.measurement import Measurement, made
from worker.model.text import iso_utc
from worker.wire import keyspace
from worker.wire.connection.server import connect

#: The ratio is measured over this many results, as often as there are repetitions.
RATIO_RESULTS = 50_000
BARE_COUNT = 1000
#: What is new in the first rows (buffers, arenas) is no growth.
WARM_ROWS = 50_000
#: Writes the measurements of today as the code before did.
WRITE = """
import sys, msgpack
from worker.model.detail import read_detail
from worker.model.measurement import Measurement, Outcome
from worker.model.probe import PROBES
from worker.model.text import parse_iso_utc
entries = []
for own, detail in msgpack.unpackb(sys.stdin.buffer.read()):
    own["started_at"] = parse_iso_utc(own["started_at"])
    own["outcome"] = Outcome(own["outcome"])
    found = Measurement(**own, detail=read_detail(PROBES[own["probe"]].statistics, detail))
    entries.append(list(found.to_fields().items()))
sys.stdout.buffer.write(msgpack.packb(entries))
"""
OWN = (
    *("run", "probe", "source", "target", "address", "error"),
    *("latency_ms", "packet_loss_pct", "throughput_mbps"),
)


class Drained(NamedTuple):
    """What a loop took for a result, in microseconds, and Redis for it; the digest of its rows."""

    wall_us: float
    cpu_us: float
    redis_us: float
    rows: str


class Loop(NamedTuple):
    """A loop, in the environment that it is started in, and the stream that it drains."""

    name: str
    kind: str
    environment: Mapping[str, str]
    url: str


def main() -> None:
    arguments = _arguments()
    if arguments.drain:
        _drain(*arguments.drain)
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, before.tree() as old:
        place = Path(folder)
        with embedded_server(place, binary=arguments.server) as server:
            connection = connect(server.url)
            print(f"server {connection.info('server')['redis_version']}")
            entries = _entries(old)
            now, then = f"{server.url}?db=0", f"{server.url}?db=1"
            _fill(connect(then), [one for one, _ in entries], RATIO_RESULTS)
            _fill(connection, [one for _, one in entries], RATIO_RESULTS)
            _tell_sizes(connect(then), connection)
            for without in (False, True):
                with _environments(old, without_hiredis=without) as (ours, theirs):
                    print("without hiredis:" if without else "with hiredis:")
                    _compare(
                        [
                            Loop("bare loop", "bare", ours, then),
                            Loop("collector", "collector", ours, now),
                            Loop("before", "collector", theirs, then),
                        ],
                        place,
                        arguments.repetitions,
                    )
            _fill(connection, [one for _, one in entries], arguments.results - RATIO_RESULTS)
            _memory(connection, now, place)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--server", type=Path)
    parser.add_argument("--drain", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def _entries(old: Path) -> list[tuple[dict[Any, Any], dict[Any, Any]]]:
    """Give measurements as XADD takes them: as the code before writes them, and as today's."""
    results = [_measured(number) for number in range(700)]
    plain = [
        (
            {name: getattr(one, name) for name in OWN}
            | {"started_at": iso_utc(one.started_at), "outcome": one.outcome.value},
            one.detail.to_map(),
        )
        for one in results
    ]
    done = subprocess.run(
        [sys.executable, "-c", WRITE],
        env=before.environment(old),
        cwd=old,
        input=msgpack.packb(plain),
        check=True,
        stdout=subprocess.PIPE,
    )
    entries = [dict(items) for items in msgpack.unpackb(done.stdout)]
    return [(then, one.to_fields()) for then, one in zip(entries, results, strict=True)]


def _measured(number: int) -> Measurement:
    """Give a result with what a node adds to each."""
    rng = random.Random(number)
    one = measurement(number)
    more = replace(
        one.detail,
        wake_ms=rng.uniform(1, 90) if one.latency_ms else None,
        clock_offset_ms=rng.uniform(-3, 3),
        clock_offset_uncertainty_ms=rng.uniform(0, 1),
    )
    return made(replace(one, detail=more))


@contextmanager
def _environments(
    old: Path, *, without_hiredis: bool
) -> Iterator[tuple[Mapping[str, str], Mapping[str, str]]]:
    """Give the environments of today's packages and of those before."""
    with tempfile.TemporaryDirectory(prefix="bench-without-") as folder:
        if without_hiredis:
            (Path(folder) / "hiredis.py").write_text("raise ImportError('left out')\n")
        theirs = before.environment(old)
        theirs["PYTHONPATH"] += f"{os.pathsep}{folder}"
        yield {**os.environ, "PYTHONPATH": folder}, theirs


def _fill(connection: redis.Redis, some: Sequence[dict[Any, Any]], count: int) -> None:
    pipeline = connection.pipeline(transaction=False)
    for number in range(count):
        pipeline.xadd(keyspace.RESULTS, some[number % len(some)])
        if number % 200 == 199:
            pipeline.execute()
    pipeline.execute()


def _tell_sizes(then: redis.Redis, now: redis.Redis) -> None:
    for name, connection in (("before", then), ("today", now)):
        used = connection.memory_usage(keyspace.RESULTS, samples=0)
        print(f"entry {name:10} {used / RATIO_RESULTS:.0f} bytes")


def _compare(loops: Sequence[Loop], folder: Path, repetitions: int) -> None:
    found: dict[str, list[Drained]] = {loop.name: [] for loop in loops}
    for _ in range(repetitions):
        for loop in loops:
            found[loop.name].append(_run(loop, folder))
    # The bare loop writes Booleans as Python does.
    assert len({one.rows for name in ("collector", "before") for one in found[name]}) == 1
    for name, each in found.items():
        rates = [1e6 / one.wall_us for one in each]
        spent = ", ".join(
            f"{median(getattr(one, what) for one in each):.1f} us {said}"
            for what, said in (("cpu_us", "CPU"), ("redis_us", "Redis"))
        )
        print(
            f"{name:10} {median(rates):8.0f} results/s ({min(rates):.0f}-{max(rates):.0f})", spent
        )
    for other in ("bare loop", "before"):
        for what in ("wall", "cpu"):
            ratios = [
                getattr(theirs, f"{what}_us") / getattr(mine, f"{what}_us")
                for mine, theirs in zip(found["collector"], found[other], strict=True)
            ]
            print(f"ratio to {other}, {what}: {median(ratios):.2f}")


def _run(loop: Loop, folder: Path) -> Drained:
    path = folder / "rows.csv"
    connection = connect(loop.url)
    connection.config_resetstat()
    told = json.loads(_child(loop.kind, loop.url, path, loop.environment))
    spent: Any = connection.info("commandstats")
    assert _rows(path) == RATIO_RESULTS
    digest = _digest(path)
    path.unlink()
    for group in connection.xinfo_groups(keyspace.RESULTS):
        connection.xgroup_destroy(keyspace.RESULTS, group["name"])
    redis_us = sum(one["usec"] for name, one in spent.items() if name.startswith("cmdstat_x"))
    return Drained(
        *(told[what] * 1e6 / RATIO_RESULTS for what in ("wall_s", "cpu_s")),
        redis_us / RATIO_RESULTS,
        digest,
    )


def _child(kind: str, url: str, path: Path, environment: Mapping[str, str]) -> str:
    program = [sys.executable, __file__, "--drain", kind, url, str(path)]
    return subprocess.run(
        program, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def _drain(kind: str, url: str, path: str) -> None:
    """Drain once, in a process of its own, and print what it took."""
    seen: list[int] = []
    total = 0

    def note(rows: int) -> None:
        nonlocal total
        total += rows
        if total >= WARM_ROWS and not seen:
            seen.append(_rss_kib())

    connection = connect(url)
    connection.ping()
    begun, cpu = time.perf_counter(), time.process_time()
    if kind == "bare":
        bare(connection, Path(path))
    else:
        Collector(connection, Path(path), on_commit=note).drain()
    took_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    rss = [*seen, _rss_kib()]
    print(json.dumps({"wall_s": took_s, "cpu_s": cpu_s, "warm_kib": rss[0], "end_kib": rss[-1]}))


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


def _memory(connection: redis.Redis, url: str, folder: Path) -> None:
    count = connection.xlen(keyspace.RESULTS)
    path = folder / "all.csv"
    told = json.loads(_child("collector", url, path, os.environ))
    assert _rows(path) == count
    print(f"{count} results in {told['wall_s']:.1f} s: {count / told['wall_s']:.0f} results/s")
    warm, end = (told[when] / 1024 for when in ("warm_kib", "end_kib"))
    print(f"RSS {warm:.1f} MiB after {WARM_ROWS} rows, {end:.1f} MiB at the end")


def _rss_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def _rows(path: Path) -> int:
    with path.open("rb") as file:
        first = file.readline()
        assert first.decode().strip().split(",") == list(CSV_COLUMNS)
        return sum(1 for _ in file)


def _digest(path: Path) -> str:
    """Return a hash of all rows but their stream ids."""
    with path.open("rb") as file:
        lines = b"\n".join(line.rpartition(b",")[0] for line in file)
    return hashlib.sha256(lines).hexdigest()


if __name__ == "__main__":
    main()
