"""
A whole mesh in the lab: what an idle node costs, what lockers feel of a mesh.

Needs root: `sudo .venv/bin/python tests/bench/bench_mesh.py [idle] [lockers]`; some 3 minutes
for both. Nothing else should run on the machine; its load is printed with the figures.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab import namespaces
from lab.mesh import LabMesh, mesh_of
from locker_cycle import cycles_ms, rank_ms
from samples import measurement

from worker.publish.outbox import BATCH, Letter, publish
from worker.wire import keyspace
from worker.wire.connection.server import connect

NODES = 16

IDLE_S = 60.0
#: RQ's first maintenance and the registration are over by then.
SETTLE_S = 10.0

PUBLISHERS = 4
#: Rounds of each kind, taking turns, so that a change of the machine's mood meets all.
LOCKER_ROUNDS = 4
LOCKER_ROUND_S = 4.0
TARGET_LOCKER_RATIO = 2.0


def main() -> None:
    """Measure what was asked for, or everything."""
    parts: dict[str, Callable[[], None]] = {"idle": idle, "lockers": lockers}
    for name in sys.argv[1:] or parts:
        load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
        print(f"\n== {name} (load before: {load:.2f} on {cores} cores)")
        parts[name]()


def idle() -> None:
    """Tell what one node costs that has nothing to do."""
    with mesh_of(1) as mesh:
        time.sleep(SETTLE_S)
        pids = list(namespaces.pids_inside([mesh.lab.nodes[0].namespace]))
        before, cpu = _server(mesh), sum(map(_cpu_s, pids))
        time.sleep(IDLE_S)
        after, cpu = _server(mesh), sum(map(_cpu_s, pids)) - cpu
        assert sorted(namespaces.pids_inside([mesh.lab.nodes[0].namespace])) == sorted(pids)
        commands = {
            name: calls - before["calls"].get(name, 0)
            for name, calls in after["calls"].items()
            if calls > before["calls"].get(name, 0) and name != "info"
        }
        # The second look is in its own figures: two INFOs, one read each.
        trips = after["reads"] - before["reads"] - 2
        processed = after["processed"] - before["processed"] - 2
        pss, alone = _memory_mb(pids)
    print(f"over {IDLE_S:.0f} s, {len(pids)} processes:")
    print(f"  round trips (reads of the server): {trips / IDLE_S:.2f}/s")
    print(f"  commands processed, those of scripts included: {processed / IDLE_S:.2f}/s")
    print(f"  {', '.join(f'{name} {calls}' for name, calls in sorted(commands.items()))}")
    print(f"  memory: PSS {pss:.1f} MB; {alone:.1f} MB if no other Python ran on the machine")
    print(f"  CPU: {100 * cpu / IDLE_S:.3f} % of a core")


def _server(mesh: LabMesh) -> dict[str, Any]:
    stats = mesh.connection.info("stats")
    by_command = cast("dict[str, dict[str, int]]", mesh.connection.info("commandstats"))
    return {
        "reads": int(stats["total_reads_processed"]),
        "processed": int(stats["total_commands_processed"]),
        "calls": {n.removeprefix("cmdstat_"): one["calls"] for n, one in by_command.items()},
    }


def _cpu_s(pid: int) -> float:
    """Give the CPU seconds of a process and of its children that have ended."""
    numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, numbers[11:15])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pids: list[int]) -> tuple[float, float]:
    """
    Give the processes' proportional set size, and what it would be without this program.

    The latter counts what they share with nobody but each other, and each page of a file once.
    """
    pss_kb = anonymous_kb = 0
    resident_kb: dict[tuple[str, str], int] = {}
    for pid in pids:
        mapping = ("", "")
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            words = line.split()
            if not words[0].endswith(":"):
                mapping = (words[5], words[2]) if len(words) > 5 else ("", "")
            elif words[0] == "Pss:":
                pss_kb += int(words[1])
                is_file = mapping[0].startswith("/")
                anonymous_kb += 0 if is_file else int(words[1])
            elif words[0] == "Rss:" and mapping[0].startswith("/"):
                resident_kb[mapping] = max(resident_kb.get(mapping, 0), int(words[1]))
    return pss_kb / 1024, (anonymous_kb + sum(resident_kb.values())) / 1024


def lockers() -> None:
    """Compare a locker's cycle on an idle mesh with one that publishes at full speed."""
    cores = sorted(os.sched_getaffinity(0))
    with mesh_of(NODES) as mesh:
        # Redis, the nodes and the locker are each on a machine of their own. On one machine: the
        # nodes stay off the core of Redis, and the locker, which needs little, never waits for the
        # processor. Then the lesson is what Redis makes of the load, not what the scheduler does.
        server = mesh.lab.redis.process
        assert server is not None
        if len(cores) > 1:
            for pid in namespaces.pids_inside(node.namespace for node in mesh.lab.nodes):
                os.sched_setaffinity(pid, cores[1:])
            for task in Path(f"/proc/{server.pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), cores[:1])
            os.sched_setaffinity(0, cores[:1])
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        print(f"Redis and the locker on core {cores[0]}, nodes on {cores[1:] or cores}")
        _compare_lockers(mesh, cores[1:] or cores)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.sched_setaffinity(0, cores)


def _compare_lockers(mesh: LabMesh, cores: list[int]) -> None:
    loads: dict[str, Callable[[], contextlib.AbstractContextManager[Callable[[], str]]]] = {
        "idle": contextlib.nullcontext,  # type: ignore[dict-item]  # says nothing at its end
        f"{PUBLISHERS} publishers flat out": lambda: _publishers(mesh, cores),
        f"runs of {NODES} nodes without a pause": lambda: _runs(mesh, cores),
    }
    cycles: dict[str, list[float]] = defaultdict(list)
    said: dict[str, list[str]] = defaultdict(list)
    for _ in range(LOCKER_ROUNDS):
        for name, load in loads.items():
            with load() as tell:
                cycles[name] += _locker_cycles_ms(mesh.connection, LOCKER_ROUND_S)
                if tell is not None:
                    said[name].append(tell())
            mesh.connection.delete(keyspace.RESULTS)
    base = rank_ms(cycles["idle"], 99)
    for name, times in cycles.items():
        p50, p99 = rank_ms(times, 50), rank_ms(times, 99)
        print(
            f"  {name}: p50 {p50:.3f} ms, p99 {p99:.3f} ms of {len(times)} cycles; "
            f"p99 ratio {p99 / base:.2f}; {', '.join(said[name])}"
        )
    print(f"  target: p99 ratio <= {TARGET_LOCKER_RATIO}")


def _locker_cycles_ms(connection: redis.Redis, seconds: float) -> list[float]:
    until = time.monotonic() + seconds
    return cycles_ms(connection, lambda: time.monotonic() >= until)


@contextlib.contextmanager
def _publishers(mesh: LabMesh, cores: list[int]) -> Iterator[Callable[[], str]]:
    """Publish from several processes as fast as they can, over TCP from a node."""
    context = multiprocessing.get_context("fork")
    script = [sys.executable, __file__, "publish", mesh.lab.redis_url]
    before = _published(mesh)
    processes = [
        context.Process(target=_exec_on, args=(mesh.lab.nodes[i].inside([*script, str(i)]), cores))
        for i in range(PUBLISHERS)
    ]
    for process in processes:
        process.start()
    while _published(mesh) - before < 100:
        time.sleep(0.01)
    try:
        yield _rate(mesh)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _exec_on(argv: list[str], cores: list[int]) -> None:
    os.sched_setaffinity(0, cores)
    os.execvp(argv[0], argv)  # noqa: S606 - the process is to be the command


def _rate(mesh: LabMesh) -> Callable[[], str]:
    """Return what tells how many results a second are added from now on."""
    before, begun = _published(mesh), time.monotonic()
    return lambda: f"{(_published(mesh) - before) / (time.monotonic() - begun):.0f} results/s"


def _published(mesh: LabMesh) -> int:
    """Give the results that were ever added."""
    stats = cast("dict[str, dict[str, int]]", mesh.connection.info("commandstats"))
    return stats.get("cmdstat_xadd", {"calls": 0})["calls"]


def publish_for_ever(url: str, number: str) -> None:
    """Publish sample results of a run of this process's own, batch after batch."""
    connection = connect(url)
    run = f"bench-{number}-{os.getpid()}"
    made = {"plan": "it", "status": "running", "pairs:ping": 10**9}
    connection.hset(keyspace.run_key(run), mapping=made)
    bit = 0
    while True:
        letters = [Letter(bit + i, measurement(bit + i, run)) for i in range(BATCH)]
        publish(connection, letters)
        bit = (bit + BATCH) % 10**7


@contextlib.contextmanager
def _runs(mesh: LabMesh, cores: list[int]) -> Iterator[Callable[[], str]]:
    """Trigger one run after the other from a node."""
    command = str(Path(sys.executable).with_name("ptzmesh"))
    loop = f"while :; do {command} run --json --new > /dev/null || exit 1; done"
    tell = _rate(mesh)
    process = subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, cores)), *mesh.lab.nodes[0].inside(["sh", "-c", loop])],
        env={**os.environ, **mesh.env},
        start_new_session=True,
    )
    try:
        yield tell
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while mesh.connection.zcard(keyspace.RUNS_OPEN):
            time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1:2] == ["publish"]:
        publish_for_ever(*sys.argv[2:4])
    else:
        main()
