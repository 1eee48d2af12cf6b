"""
A throughput phase of a whole mesh in the lab: how near its bound it comes, what it asks of Redis.

Needs root: `sudo .venv/bin/python tests/bench/bench_throughput.py`; about a minute. Nothing else
should run on the machine; its load is printed with the figures.

The bound is 2(N - 1) test lengths for even N. The makespan begins with the last
echo of the ping phase and ends with the last test, so what lies between the phases is in it.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from statistics import median
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab.mesh import LabMesh, mesh_of

from coordinator.results.results import read
from worker.model.measurement import Measurement
from worker.model.tournament import least_rounds
from worker.wire import keyspace

NODES = 8
REPETITIONS = 3
TEST_S = 1.0
GOAL = 1.35
#: Far below what the machine can do, so that the schedule is measured and not the processor.
RATE_MBPS = "10"
DEADLINE_S = 120.0
#: How often the run's phase is looked at; each look is one command, which is left out.
LOOK_S = 0.1
#: Kinds of commands that are printed, the most frequent first.
SHOWN = 8


@dataclass(frozen=True)
class Counts:
    """What a server has processed until a moment, commands of scripts included."""

    at: float
    processed: int
    reads: int
    calls: Counter[str]


def main() -> None:
    """Repeat the phase, and print the ratio of each and of the median."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    print(f"{NODES} nodes, tests of {TEST_S:g} s (load before: {load:.2f} on {cores} cores)")
    bound_s = TEST_S * least_rounds(permutations(range(NODES), 2))
    ratios = []
    with mesh_of(NODES) as mesh:
        for _ in range(REPETITIONS):
            ratios.append(_phase(mesh, bound_s))
    verdict = "met" if median(ratios) <= GOAL else "MISSED"
    print(f"median ratio {median(ratios):.3f}; target <= {GOAL}: {verdict}")


def _phase(mesh: LabMesh, bound_s: float) -> float:
    """Do one run, print its figures, and give makespan ÷ bound."""
    probes = ("--probe", "ping", "--probe", "throughput")
    options = ("--duration", f"{TEST_S:g}", "--bitrate", RATE_MBPS)
    run = mesh.detach(mesh.lab.nodes[0], *probes, *options)
    looks = _wait(mesh, run, "phase", b"1")
    before = _counts(mesh)
    looks = _wait(mesh, run, "status", b"done")
    after = _counts(mesh)
    found = [one for _, one in read(mesh.connection, run=run)]
    tests = [one for one in found if one.probe == "throughput"]
    ok = sum(one.outcome == "ok" for one in tests)
    pinged = max(_end(one, "elapsed_s") for one in found if one.probe == "ping")
    makespan_s = max(_end(one, "test_s") for one in tests) - pinged
    longest = max(float(one.detail.test_s) for one in tests)
    mean_s = sum(float(one.detail.test_s) for one in tests) / len(tests)
    print(
        f"makespan {makespan_s:.2f} s / bound {bound_s:.0f} s = {makespan_s / bound_s:.3f}; "
        f"{ok} of {len(tests)} tests ok, {mean_s:.3f} s each (longest {longest:.3f} s)"
    )
    _print_commands(before, after, looks, len(tests))
    return makespan_s / bound_s


def _end(one: Measurement, lasted: str) -> float:
    return one.started_at.timestamp() + float(getattr(one.detail, lasted))


def _wait(mesh: LabMesh, run: str, field: str, value: bytes) -> int:
    """Wait until a run's field has a value; give how many commands that took."""
    looks, give_up_at = 1, time.monotonic() + DEADLINE_S
    while cast("bytes | None", mesh.connection.hget(keyspace.run_key(run), field)) != value:
        assert time.monotonic() < give_up_at, f"{field} of run {run} is not {value!r}"
        time.sleep(LOOK_S)  # between two looks
        looks += 1
    return looks


def _counts(mesh: LabMesh) -> Counts:
    stats = mesh.connection.info("stats")
    by_command = cast("dict[str, dict[str, int]]", mesh.connection.info("commandstats"))
    calls = {name.removeprefix("cmdstat_"): one["calls"] for name, one in by_command.items()}
    processed, reads = int(stats["total_commands_processed"]), int(stats["total_reads_processed"])
    return Counts(time.monotonic(), processed, reads, Counter(calls))


def _print_commands(before: Counts, after: Counts, looks: int, tests: int) -> None:
    """Print what the nodes asked of Redis between two moments, our own looks left out."""
    seconds = after.at - before.at
    # Ours are the looks, the second INFO of the first count, and the first of the second.
    own = looks + 2
    processed = after.processed - before.processed - own
    reads = after.reads - before.reads - own
    calls = after.calls - before.calls
    calls["hget"] -= looks
    del calls["info"]
    print(
        f"  Redis over {seconds:.1f} s: {processed / seconds:.0f} commands/s, those of scripts "
        f"included; {reads / seconds:.0f} round trips/s; {processed / tests:.0f} commands a test"
    )
    print("  " + ", ".join(f"{name} {count}" for name, count in calls.most_common(SHOWN)))


if __name__ == "__main__":
    main()
