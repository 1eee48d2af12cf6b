"""
What measuring adds to an acquire: the drop-in beside an unchanged PTZJEPA, in turns, in one run.

    python tests/bench/bench_lockers.py [OPERATIONS]

Both take and free lockers of one Redis on this machine over TCP. Records are published and the way
to Redis is pinged meanwhile, as in earnest. Exits 1 when the drop-in's p99 is more than
`MOST_ADDED_MS` above the other's in the median round, at either pace.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ptzjepa import UnchangedLockers

from coordinator.embedded import embedded_server
from worker.model.rtt import percentile
from worker.monitor import MultiLockerSystem, process

MOST_ADDED_MS = 0.2
ROUNDS = 5
#: Seconds between operations: 0 is more than any program does; PTZJEPA acquires once in minutes.
PACES_S = (0.0, 0.005)
LOCKERS = 8


def acquire_ms(system: Any, locker: int) -> float:
    """Time one acquire of a free locker."""
    begun = time.perf_counter()
    taken = system.acquire_locker(locker)
    elapsed_ms = (time.perf_counter() - begun) * 1e3
    assert taken == locker
    assert system.release_locker(locker)
    return elapsed_ms


def one_round(systems: dict[str, Any], operations: int, pace_s: float) -> dict[str, list[float]]:
    """Let both take turns, so that a change of the machine's mood meets both."""
    times_ms: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(operations):
        for name, system in systems.items():
            times_ms[name].append(acquire_ms(system, number % LOCKERS))
            if pace_s:
                time.sleep(pace_s)
    return times_ms


def compare(systems: dict[str, Any], operations: int, pace_s: float) -> float:
    """Print the rounds at one pace; give what the median round adds at p99, in milliseconds."""
    added_ms = []
    for number in range(ROUNDS):
        times_ms = one_round(systems, operations, pace_s)
        cells = []
        for values in times_ms.values():
            cells += [f"{percentile(values, percent):.3f}" for percent in (50, 99)]
        ours, plain = (percentile(times_ms[name], 99) or 0.0 for name in ("ours", "unchanged"))
        added_ms.append(ours - plain)
        ratio = ours / plain
        print(
            f"| {pace_s * 1e3:g} | {number + 1} | {' | '.join(cells)} "
            f"| {added_ms[-1]:+.3f} | {ratio:.2f} |",
            flush=True,
        )
    return statistics.median(added_ms)


def main() -> None:
    """Print one line a round, and the verdict."""
    operations = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with (
        tempfile.TemporaryDirectory(prefix="ptzmesh-bench-") as folder,
        embedded_server(Path(folder), unix=False) as server,
    ):
        url = urlsplit(server.url)
        place = (str(url.hostname), int(url.port or 0), url.password, "file_lockers", LOCKERS)
        systems = {"unchanged": UnchangedLockers(*place), "ours": MultiLockerSystem(*place)}
        one_round(systems, 100, 0.0)  # connections, scripts and threads are there
        print(
            "| pace ms | round | unchanged p50 ms | p99 ms | ours p50 ms | p99 ms "
            "| added p99 ms | ratio p99 |"
        )
        print("|---|---|---|---|---|---|---|---|")
        worst_ms = 0.0
        for pace_s in PACES_S:
            count = operations if not pace_s else operations // 4
            worst_ms = max(worst_ms, compare(systems, count, pace_s))
        process.recorder().close(10.0)
    print(f"added to acquire at p99: {worst_ms:.3f} ms (median round); {MOST_ADDED_MS} allowed")
    sys.exit(worst_ms > MOST_ADDED_MS)


if __name__ == "__main__":
    main()
