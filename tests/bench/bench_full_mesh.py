"""
A full mesh beside that of the code before: how long a run takes beyond its series, where the time
goes, what it costs the processors; and how often a node waits for Redis, one time after the other.

Needs root: `sudo .venv/bin/python tests/bench/bench_full_mesh.py [near] [far]`; some seven
minutes for both. The two meshes take turns, so that a change of the machine's mood meets both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

# Behind PYTHONPATH: the mesh of the code before is made by the helpers of that time.
sys.path.append(str(Path(__file__).resolve().parents[1]))

import before
from lab import namespaces
from lab.mesh import LabMesh, mesh_of
from waiting import wait_until

from coordinator.results.results import read

NODES = 16
REPETITIONS = 9
#: 10 echoes at 0.1 s: the last one leaves 0.9 s after the first.
SERIES_S = 0.9
TARGET_BEYOND_S = 0.5

FAR_NODES = 2
#: Nothing of this is chance, and the code before takes a minute for one.
FAR_REPETITIONS = 1
#: Until the way is known, and nodes have said who they are, which holds for a day.
NEAR_WARM_UPS, FAR_WARM_UPS = 1, 2
#: Each way between a node and Redis.
FAR_MS = 400.0
TARGET_FAR_TRIPS = 5.0

#: The parts of a run, in their order; the spread of starts is counted apart.
STARTS = "command starts, plans, writes the run"
QUEUES = "until the first echo (queue, fork, where the others are)"
SPREADS = "until the last pair's first echo (spread of starts)"
MEASURES = "until the last pair's series is over"
STREAMS = "until the last pair is in the stream"
PRINTS = "until the command has printed it"
ENDS = "until the command has ended"
CLOSES = "until the run is closed"
BEYOND = "beyond the series and the spread of starts"


def main() -> None:
    """Compare what was asked for, or both."""
    parts = {"near": near, "far": far}
    with before.tree() as old:
        for name in sys.argv[1:] or parts:
            load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
            print(f"\n== {name} (load before: {load:.2f} on {cores} cores)")
            parts[name](old)


def near(old: Path) -> None:
    """Time full meshes from the command to its last result, and count what they cost."""
    rounds = _in_turn(old, REPETITIONS, NODES, 0.0)
    whole = {kind: _medians(some) for kind, some in rounds.items()}
    print(f"{f'seconds, medians of {REPETITIONS}':58} {'before':>8} {'now':>8} ratio")
    for name in whole["now"]:
        was, now = whole["before"][name], whole["now"][name]
        print(f"  {name:56} {was:8.3f} {now:8.3f} {now / was:5.2f}")
    met = whole["now"][BEYOND] <= TARGET_BEYOND_S
    print(f"target + {TARGET_BEYOND_S} s: {'met' if met else 'MISSED'}")


def far(old: Path) -> None:
    """Count how often nodes wait, one time after the other, for a Redis that is far away."""
    rounds = _in_turn(old, FAR_REPETITIONS, FAR_NODES, FAR_MS)
    trip_s = 2 * FAR_MS / 1e3
    for kind, (made,) in rounds.items():
        print(
            f"{kind}: {made[BEYOND] / trip_s:.1f} round trips of {trip_s} s from the jobs to the "
            f"last result, {made[CLOSES] / trip_s:.1f} more until the run is closed"
        )
    # What is not waiting takes some hundredths of one.
    met = round(rounds["now"][0][BEYOND] / trip_s) <= TARGET_FAR_TRIPS
    print(f"target {TARGET_FAR_TRIPS:.0f} to the last result: {'met' if met else 'MISSED'}")


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(each[name] for each in rounds) for name in rounds[0]}


def _in_turn(old: Path, times: int, nodes: int, way_ms: float) -> dict[str, list[dict[str, float]]]:
    """Have a mesh of each code, and runs of them by turns; the first of each do not count."""
    warm_ups = FAR_WARM_UPS if way_ms else NEAR_WARM_UPS
    with ExitStack() as stack:
        meshes = {
            kind: stack.enter_context(_mesh_of_code(tree, nodes, way_ms))
            for kind, tree in (("before", old), ("now", before.ROOT))
        }
        rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in meshes}
        for number in range(warm_ups + times):
            # Who waits for a Redis far away takes nothing from the other.
            for turn in [list(meshes)] if way_ms else [[kind] for kind in meshes]:
                for kind in turn:
                    meshes[kind].ask()
                for kind in turn:
                    made = meshes[kind].answer()
                    rounds[kind] += [made] if number >= warm_ups else []
        return rounds


class Rounds:
    """This file as a process by the packages and helpers of a tree, with a mesh of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Wait until its mesh is there."""
        assert process.stdin is not None
        assert process.stdout is not None
        self.asked, self.told = process.stdin, process.stdout
        assert self.told.readline() == "ready\n"

    def ask(self) -> None:
        """Ask for a run."""
        self.asked.write("run\n")
        self.asked.flush()

    def answer(self) -> dict[str, float]:
        """Give what is told of the run."""
        told: dict[str, float] = json.loads(self.told.readline())
        return told


@contextmanager
def _mesh_of_code(tree: Path, nodes: int, way_ms: float) -> Iterator[Rounds]:
    process = subprocess.Popen(
        [sys.executable, __file__, "rounds", str(nodes), str(way_ms)],
        cwd=tree,
        env=before.environment(tree),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Rounds(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def rounds(nodes: int, way_ms: float) -> None:
    """Make a mesh, and a run at each line of standard input."""
    with mesh_of(nodes) as mesh:
        with mesh.lab.at_once():
            for node in mesh.lab.nodes if way_ms else ():
                mesh.lab.round_trip(node, mesh.lab.redis_node, 2 * way_ms)
        print("ready", flush=True)
        for _ in sys.stdin:
            print(json.dumps(_far_run(mesh) if way_ms else _near_run(mesh)), flush=True)


def _far_run(mesh: LabMesh) -> dict[str, float]:
    """Trigger beside Redis, so that only the nodes wait."""
    run = mesh.detach(mesh.lab.redis_node, "--new")
    mesh.wait_until_ended(run)
    wait_until(lambda: len(_pids(mesh)) == 3 * len(mesh.lab.nodes), "no work-horse is left")
    return _parts(mesh, run)


def _near_run(mesh: LabMesh) -> dict[str, float]:
    pids = _pids(mesh)
    cpu, redis_cpu = _cpu_s(pids), _redis_cpu_s(mesh)
    begun = time.time()
    process = subprocess.Popen(
        mesh.lab.nodes[0].inside([sys.executable, "-m", "coordinator.cli", "run", "--json"]),
        stdout=subprocess.PIPE,
        env={**os.environ, **mesh.env},
    )
    assert process.stdout is not None
    lines = [(time.time(), json.loads(line)) for line in process.stdout]
    _, status, used = os.wait4(process.pid, 0)
    ended = time.time()
    assert status == 0, status
    wait_until(lambda: _pids(mesh) == pids, "the work-horses have ended")
    run = str(lines[0][1]["run"])
    parts = _parts(mesh, run)
    last = max(at for at, line in lines if "source" in line)
    created = mesh.state(run).created
    published = parts.pop("published")
    return {
        STARTS: created - begun,
        **{name: parts[name] for name in (QUEUES, SPREADS, MEASURES, STREAMS)},
        PRINTS: last - published,
        ENDS: ended - last,
        BEYOND: last - begun - SERIES_S - parts[SPREADS],
        "CPU of the nodes": _cpu_s(pids) - cpu,
        "CPU of the command": used.ru_utime + used.ru_stime,
        "CPU of Redis": _redis_cpu_s(mesh) - redis_cpu,
    }


def _parts(mesh: LabMesh, run: str) -> dict[str, float]:
    """Part the time by the one clock that all processes of the lab share."""
    assert len(mesh.rows(run)) == len(mesh.lab.nodes) * (len(mesh.lab.nodes) - 1)
    state = mesh.state(run)
    entries = [
        (int(stream_id.partition("-")[0]) / 1e3, one)
        for stream_id, one in read(mesh.connection, run=state.id)
    ]
    first_echo = [one.started_at.timestamp() for _, one in entries]
    over = [one.started_at.timestamp() + _elapsed_s(one) for _, one in entries]
    published = max(at for at, _ in entries)
    spread = max(first_echo) - min(first_echo)
    return {
        QUEUES: min(first_echo) - state.created,
        SPREADS: spread,
        MEASURES: max(over) - max(first_echo),
        STREAMS: published - max(over),
        CLOSES: (state.closed or time.time()) - published,
        "published": published,
        BEYOND: published - state.created - SERIES_S - spread,
    }


def _elapsed_s(measured: Any) -> float:
    return float(measured.detail.elapsed_s)


def _pids(mesh: LabMesh) -> list[int]:
    return sorted(namespaces.pids_inside(node.namespace for node in mesh.lab.nodes))


def _cpu_s(pids: list[int]) -> float:
    """Give the CPU seconds of processes, and of their children that have ended."""
    ticks = os.sysconf("SC_CLK_TCK")
    own_ns = sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids)
    stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return own_ns / 1e9 + sum(sum(map(int, words[13:15])) for words in stats) / ticks


def _redis_cpu_s(mesh: LabMesh) -> float:
    used = mesh.connection.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["rounds"]:
        rounds(int(sys.argv[2]), float(sys.argv[3]))
    else:
        main()
