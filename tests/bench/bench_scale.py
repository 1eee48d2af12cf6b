"""
Two hundred nodes and a thousand on one Redis: how long, how much of Redis, what lockers feel.

    python tests/bench/bench_scale.py [mesh] [thousand] [--nodes N] [--rate R]

Redis (Valkey, TCP on the loopback), the collector, the commands and every byte between them are
real; nodes are simulated as scale_fleet.py says, many to a process. Where this biases figures:

- all nodes share the cores that are not Redis', so they publish slower than as many machines would:
  times from trigger to last row are upper bounds, and the load on Redis at any moment a lower one;
  the CPU seconds that Redis spends, bytes and numbers of commands do not depend on it;
- Redis and the locker share a core (the locker goes first), as if each had a machine. With a
  thousand nodes the nodes use that core, too, when Redis leaves it: it goes before them, but what
  they left in the processor's caches costs it time;
- nothing travels over a network: a result's way is shorter, and a real echo's cost is not here.

Nothing else should run on the machine; its load is printed with the figures.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scale_meter import (
    Cores,
    Fleet,
    Meter,
    Work,
    lockers,
    raw_xadd,
    rss_mib,
    run_program,
    tell_lockers,
)

from coordinator.embedded import embedded_server
from coordinator.runs.runs import read_run
from worker.wire import keyspace

PROGRAM = str(Path(sys.executable).with_name("ptzmesh"))
IDLE_S = 20.0
#: All have sent two heartbeats by then, and what they say they send to Redis is what idle nodes do.
SETTLE_S = 32.0
DEADLINE_S = 1800.0
#: Of the raw stream beside it.
RAW_ENTRIES = 200_000


def main() -> None:
    """Measure what was asked for, or both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0].strip())
    parser.add_argument("parts", nargs="*", choices=["mesh", "thousand", []])
    parser.add_argument("--nodes", type=int, help="instead of 200 and 1000")
    parser.add_argument("--rate", type=int, help="results a second that the mesh may publish")
    parser.add_argument("--only", default="", help="parts of `thousand`, comma-separated")
    asked = parser.parse_args()
    for part in asked.parts or ["mesh", "thousand"]:
        load, cores = os.getloadavg(), len(os.sched_getaffinity(0))
        print(f"== {part} (load before: {load[0]:.2f}, {load[1]:.2f} on {cores} shared cores)")
        if part == "mesh":
            mesh(asked.nodes or 200, asked.rate)
        else:
            import scale_thousand

            scale_thousand.main(asked.nodes or 1000, asked.rate, asked.only)


class Bench:
    """A server, its meter, its nodes, and a folder for their files."""

    def __init__(self, folder: Path, meter: Meter, fleet: Fleet, cores: Cores) -> None:
        """Hold them."""
        self.folder, self.meter, self.fleet, self.cores = folder, meter, fleet, cores
        self.url, self.connection = meter.server.url, meter.connection

    def command(self, *words: str) -> list[str]:
        """Give a command of ours; it finds the server in its environment."""
        return [PROGRAM, *words]


@contextmanager
def bench(rate: int | None, *, spread: bool = False) -> Iterator[Bench]:
    """Start a server; nodes are started by the caller. `spread` lets them use all cores."""
    cores = Cores(spread=spread)
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as name:
        folder = Path(name)
        with embedded_server(folder, unix=False, options=["maxclients 20000"]) as server:
            cores.keep_off()
            cores.pin_server(server.pid)
            (folder / "state").mkdir()
            os.environ["PTZMESH_REDIS_URL"] = server.url  # of all programs that are started here
            fleet = Fleet(folder / "state")
            made = Bench(folder, Meter(server, folder / "state"), fleet, cores)
            print(f"  server {made.connection.info('server')['redis_version']}")
            if rate is not None:
                made.connection.hset(keyspace.LIMITS, "results_per_s", rate)
            try:
                yield made
            finally:
                fleet.stop()


def mesh(nodes: int, rate: int | None) -> None:
    """Run a full mesh of pings with a collector and a follower beside it."""
    pairs = nodes * (nodes - 1)
    with bench(rate) as made:
        started = time.monotonic()
        made.fleet.start(0, nodes, -(-nodes // 4))
        print(f"  {nodes} nodes registered after {time.monotonic() - started:.1f} s")
        time.sleep(SETTLE_S)
        with made.meter.measure() as work:
            time.sleep(IDLE_S)
        work.tell("idle")
        idle, cycle_cpu_s = idle_lockers(made, work.cpu_s / work.seconds)
        with collector(made) as (process, csv):
            with made.meter.measure() as work, lockers(made.url, made.cores) as during:
                begun = time.time()
                ended = run_program(made.command("run"), made.folder / "run.txt")
                run = cast("list[bytes]", made.connection.zrange(keyspace.RUNS, -1, -1))[0].decode()
                written = wait_for_rows(csv, pairs)
            _, peak = rss_mib(process.pid)
        assert ended.code in (0, 4), ended.said
        work.cpu_s -= len(during) * cycle_cpu_s
        work.tell(f"the run and its collection, {pairs} pairs, CPU without the lockers'")
        tell_run(made, run, begun, written, pairs)
        print(
            f"    ptzmesh run: {ended.seconds:.2f} s, peak {ended.peak_rss_mib:.0f} MiB; "
            f"collector: peak {peak:.0f} MiB"
        )
        tell_memory(made, work, run, pairs)
        tell_lockers(idle, during, "during")
        tell_raw(made, work.cpu_s / pairs)
        print(f"  load after: {os.getloadavg()[0]:.2f}")


def idle_lockers(made: Bench, idle_cores: float) -> tuple[list[float], float]:
    """Give the cycles of a locker on an idle mesh, and the CPU seconds that each costs Redis."""
    with made.meter.measure() as work, lockers(made.url, made.cores) as cycles:
        time.sleep(IDLE_S / 2)
    return cycles, (work.cpu_s - idle_cores * work.seconds) / len(cycles)


def tell_raw(made: Bench, our_cpu_s: float) -> None:
    """Print what Redis can do with the same bytes, and how much more a result of ours costs it."""
    rate, raw_cpu_s = raw_xadd(made.connection, made.meter, RAW_ENTRIES)
    print(
        f"    CPU of Redis a result: {our_cpu_s * 1e6:.1f} µs with its run and its collection; raw "
        f"pipelined XADD of the same bytes: {raw_cpu_s * 1e6:.1f} µs ({rate:.0f}/s), "
        f"ratio {our_cpu_s / raw_cpu_s:.1f}"
    )


@contextmanager
def collector(made: Bench) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Follow the stream with the real command."""
    csv = made.folder / "out.csv"
    argv = made.command("collect", "--csv", str(csv), "--follow")
    with (made.folder / "collect.txt").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            while not csv.exists():
                time.sleep(0.05)
            yield process, csv
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def wait_for_rows(csv: Path, count: int) -> float:
    """Wait until the file has so many rows; give the time of it."""
    rows, deadline = -1, time.monotonic() + DEADLINE_S  # the heading is none
    with csv.open("rb") as file:
        while rows < count:
            assert time.monotonic() < deadline, f"{rows} of {count} rows"
            if part := file.read(1 << 20):
                rows += part.count(b"\n")
            else:
                time.sleep(0.02)
    assert rows == count, f"{rows} rows for {count} pairs"
    return time.time()


def tell_run(made: Bench, run: str, begun: float, written: float, pairs: int) -> None:
    """Print how long a run took, by the one clock that all processes here share."""
    state = read_run(made.connection, run)
    assert state.published == pairs, state
    newest = made.connection.xrevrange(keyspace.RESULTS, count=1)
    last = int(cast("list[tuple[bytes, object]]", newest)[0][0].partition(b"-")[0]) / 1e3
    print(
        f"    from the command's start: run written {state.created - begun:.2f} s, last row in the "
        f"stream {last - begun:.2f} s, in the CSV {written - begun:.2f} s; "
        f"{pairs / (last - state.created):.0f} results/s"
    )


def tell_memory(made: Bench, work: Work, run: str, pairs: int) -> None:
    """Print what of ours Redis holds."""
    parts = key_memory(made.connection, run)
    print(
        f"    in Redis: stream {work.max_stream_bytes / 2**20:.1f} MiB "
        f"({work.max_stream_bytes / pairs:.0f} B a result); "
        + ", ".join(f"{name} {size / 1024:.1f} kiB" for name, size in parts.items())
        + f"; the whole server at most {work.max_used_bytes / 2**20:.0f} MiB"
    )


def key_memory(connection: redis.Redis, run: str) -> dict[str, int]:
    """Give the exact bytes of a run's record, its bitmap, and a node's record."""
    plan = cast("bytes", connection.hget(keyspace.run_key(run), "plan"))
    names = cast("list[bytes]", connection.zrange(keyspace.NODES, 0, 0))
    keys = {
        "run record": keyspace.run_key(run),
        "bitmap": keyspace.done_key(run, "ping"),
        "a node's record": keyspace.node_key(names[0].decode()),
    }
    sizes = {n: connection.memory_usage(key, samples=0) or 0 for n, key in keys.items()}
    return {"plan": len(plan), **sizes}


if __name__ == "__main__":
    main()
