"""
What a ping result of ten echoes costs in the stream, and how fast it is written and read.

Run: python tests/bench/bench_record.py [--results 100000] [--rounds 3] [--server PATH]
The same results are made by the code before and by ours, as `ping` makes them, and added to one
Redis. Prints bytes an entry (MEMORY USAGE / entries), and the CPU time that one takes: to make of
its echoes, to write, and to read; what a row of the CSV takes is in `bench_collector.py`.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import redis
from before import ROOT, told, tree

from coordinator.embedded import embedded_server
from worker.model.measurement import Measurement
from worker.model.names import IpLiteral
from worker.model.options import PingOptions
from worker.model.plan import TargetNode
from worker.probes import ping
from worker.probes.icmp.series import EchoSeries

#: From a bridge on one machine to a satellite; those above 100 are medians of traces of RIPE Atlas.
LEVELS_MS = (0.08, 0.35, 1.9, 4.2, 12.0, 28.0, 55.0, 95.0, 150.0, 178.0, 295.0, 620.0)
RUN, BEGUN = "20260102T030405000-9f3c", datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
ECHOES, NODES = 10, 16
#: One echo in so many is lost.
LOST = 500
#: Results of which the speed is measured, over and over.
SOME = 500
STREAM = "bench"


def main() -> None:
    arguments = _arguments()
    if arguments.measure:
        print(json.dumps(_measure(arguments.measure, arguments.results)))
        return
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as place,
        embedded_server(Path(place), binary=arguments.server) as server,
        tree() as before,
    ):
        asked = ("--measure", server.url, "--results", str(arguments.results))
        old, new = [], []
        for _ in range(arguments.rounds):
            old.append(json.loads(told(before, *asked)))
            new.append(json.loads(told(ROOT, *asked)))
    for name in ("entry", "make", "write", "read"):
        unit = "bytes" if name == "entry" else "µs"
        was, now = (median(each[name] for each in found) for found in (old, new))
        ratio = median(o[name] / n[name] for o, n in zip(old, new, strict=True))
        print(f"{name:6} {was:7.1f} {unit} before, {now:7.1f} {unit} now, ratio {ratio:.2f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", type=Path)
    parser.add_argument("--measure", metavar="URL", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(url: str, results: int) -> dict[str, float]:
    made = list(_made(SOME))
    entries = [_raw(each) for each in made]
    assert all(Measurement.from_fields(e) == m for e, m in zip(entries, made, strict=True))
    found = {
        "make": _cpu_us(lambda: list(_made(SOME))) - _cpu_us(lambda: list(_series_of(SOME))),
        "write": _cpu_us(lambda: [each.to_fields() for each in made]),
        "read": _cpu_us(lambda: [Measurement.from_fields(each) for each in entries]),
    }
    with redis.Redis.from_url(url) as connection:
        connection.delete(STREAM)
        pipeline = connection.pipeline(transaction=False)
        for number, each in enumerate(_made(results)):
            pipeline.xadd(STREAM, dict[Any, Any](each.to_fields()))
            if number % 200 == 199:
                pipeline.execute()
        pipeline.execute()
        held = connection.memory_usage(STREAM, samples=0)
    return found | {"entry": held / results}


def _made(count: int) -> Iterator[Measurement]:
    """Give as many results as `ping` makes them."""
    for source, target, series, clock in _series_of(count):
        made = ping.measurement(RUN, source, target, series, PingOptions())
        yield replace(made, detail=replace(made.detail, **clock))


def _series_of(count: int) -> Iterator[tuple[str, TargetNode, EchoSeries, dict[str, float]]]:
    """Give source, target and echoes, and the clock that the publisher adds, always the same."""
    rng = random.Random(0)
    for number in range(count):
        place = number % NODES
        target = TargetNode(name=f"cam-{place:02}", address=IpLiteral(f"10.20.0.{place}"))
        clock = {
            "clock_offset_ms": round(rng.gauss(0, 2), 3),
            "clock_offset_uncertainty_ms": round(rng.uniform(0.1, 0.9), 3),
        }
        source = f"cam-{rng.randrange(NODES):02}"
        yield source, target, _series(rng, number, target), clock


def _series(rng: random.Random, number: int, target: TargetNode) -> EchoSeries:
    level_ns = rng.choice(LEVELS_MS) * 1e6
    rtts_ns = [
        None if rng.randrange(LOST) == 0 else round(level_ns * rng.lognormvariate(0.05, 0.04))
        for _ in range(ECHOES)
    ]
    answered = [ns for ns in rtts_ns if ns is not None]
    gaps_ns = (ECHOES - 1) * 100_000_000 + rng.randrange(200_000)
    return EchoSeries(
        address=target.address,
        sent=ECHOES,
        received=len(answered),
        **dict.fromkeys(("duplicates", "late", "errors", "damaged", "refused", "times_refused"), 0),
        rtts_ms=tuple(None if ns is None else ns / 1e6 for ns in rtts_ns),
        wake_ms=round(level_ns * rng.lognormvariate(0.3, 0.2)) / 1e6,
        reply_ttls=(rng.choice((64, 64, 64, 63, 55)),),
        answered_by=(),
        # Whole milliseconds, which the code before keeps.
        started_ns=int(BEGUN.timestamp()) * 10**9 + number * 10**6,
        elapsed_s=(gaps_ns + level_ns + rng.randrange(10**6)) / 1e9,
        interval_mean_s=gaps_ns / (ECHOES - 1) / 1e9,
        send_lag_max_ms=round(rng.lognormvariate(12, 0.7)) / 1e6,
        read_lag_max_ms=round(rng.lognormvariate(11, 0.7)) / 1e6,
        receive_drops=0,
        error_kind=None,
        error=None,
        socket_kind="raw",
    )


def _raw(measurement: Measurement) -> dict[bytes, bytes]:
    fields = measurement.to_fields()
    return {k.encode(): v if isinstance(v, bytes) else v.encode() for k, v in fields.items()}


def _cpu_us(some: Callable[[], object]) -> float:
    """Return the least CPU time that one of `SOME` takes."""
    times = []
    for _ in range(10):
        begun = time.process_time()
        some()
        times.append(time.process_time() - begun)
    return min(times) / SOME * 1e6


if __name__ == "__main__":
    main()
