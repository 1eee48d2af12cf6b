"""The parts of `bench_scale.py thousand`: plan, idle, run, show, push, lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from bench_scale import (
    DEADLINE_S,
    IDLE_S,
    SETTLE_S,
    Bench,
    bench,
    collector,
    idle_lockers,
    key_memory,
    tell_memory,
    tell_raw,
    tell_run,
    wait_for_rows,
)
from scale_fleet import name_of
from scale_meter import Work, lockers, own_peak_mib, rss_mib, run_program, tell_lockers
from waiting import wait_until

from coordinator.mesh import Mesh
from coordinator.runs.advance import advance
from coordinator.runs.nodes import commands_per_s
from coordinator.runs.runs import read_run
from worker.probes.traffic import bytes_per_node
from worker.wire import keyspace, liveness, scripts
from worker.wire.connection import server
from worker.wire.registry import read_nodes
from worker.wire.room import read_limits

#: The run's results all fit, so that `show` has the whole matrix.
WHOLE_RUN_BYTES = 2 * 2**30
#: A stream with room for about a quarter of what comes.
PUSH_BYTES_A_PAIR = 160
LOST_SHARE = 10

T = TypeVar("T")


def main(nodes: int, rate: int | None, only: str) -> None:
    """Measure the parts that are asked for, or all."""
    wanted = only.split(",") if only else ["plan", "idle", "run", "show", "push", "lost"]
    if "plan" in wanted:
        with bench(rate) as made:
            plan(made, nodes)
    live: dict[str, Callable[[Bench, int], None]] = {
        "idle": idle, "run": run, "show": show, "push": push, "lost": lost,
    }  # fmt: skip
    if set(wanted) & set(live):
        with bench(rate, spread=True) as made:
            lose = max(1, nodes // LOST_SHARE)
            made.fleet.start(0, nodes - lose, -(-(nodes - lose) // 4))
            made.fleet.start(nodes - lose, lose, lose)
            time.sleep(SETTLE_S)
            for name in [one for one in live if one in wanted]:
                print(f" -- {name}")
                live[name](made, nodes)


def plan(made: Bench, nodes: int) -> None:
    """Plan and trigger on registered nodes that do nothing, then carry the run on."""
    print(" -- plan, trigger, advance")
    # Registered by real heartbeats, then gone; `_heard` keeps them alive.
    made.fleet.start(0, nodes, -(-nodes // 2))
    made.fleet.stop()
    made.connection.delete(*made.connection.keys("rq:*"))
    mesh = Mesh(made.url)
    registered = _timed("read the registry", mesh.nodes)
    frozen = _timed("make the plan", mesh.plan)
    assert len(registered) == nodes
    packed = _timed("pack it", frozen.packed)
    cost = _timed("count its bytes per node", lambda: bytes_per_node(frozen))
    print(
        f"  plan: {frozen.pair_count} pairs, {len(packed)} B ({len(packed) / nodes:.0f} B a node); "
        f"a node sends and receives at most {max(v or 0 for v in cost.values()):,} B"
    )
    dry = run_program(made.command("run", "--dry-run"), made.folder / "dry.txt")
    assert dry.code == 0, dry.said
    print(f"  ptzmesh run --dry-run: {dry.seconds:.2f} s, peak {dry.peak_rss_mib:.0f} MiB")
    idle, cycle_cpu_s = idle_lockers(made, 0.0)
    with made.meter.measure() as work, lockers(made.url, made.cores) as during:
        begun = time.monotonic()
        started = mesh.start(frozen)
        seconds = time.monotonic() - begun
    print(f"  trigger: {seconds:.3f} s until the last of {nodes} sweeps is enqueued")
    work.cpu_s -= len(during) * cycle_cpu_s
    work.tell("trigger")
    tell_lockers(idle, during, "during")
    _timed("read the run", lambda: read_run(made.connection, started.id))
    for what in ("first", "again"):
        _heard(made)
        with made.meter.measure() as work, lockers(made.url, made.cores) as during:
            argv = [sys.executable, __file__, "advance", started.id]
            told = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
        work.cpu_s -= len(during) * cycle_cpu_s
        print(
            f"  advance with all {frozen.pair_count} pairs missing, {what}: "
            f"{told['seconds']:.2f} s, peak {told['peak']:.0f} MiB (before it {told['before']:.0f})"
        )
        work.tell("advance")
        tell_lockers(idle, during, "during")
    print(f"  {key_memory(made.connection, started.id)} B")


def idle(made: Bench, nodes: int) -> None:
    """Tell what nodes cost that have nothing to do."""
    with made.meter.measure() as work:
        time.sleep(IDLE_S)
    work.tell(f"{nodes} idle nodes")
    clients = made.connection.info("clients")["connected_clients"]
    print(f"    {clients} clients; Redis uses {work.max_used_bytes / 2**20:.0f} MiB")


def run(made: Bench, nodes: int) -> None:
    """Run the whole mesh with a collector beside it."""
    pairs = nodes * (nodes - 1)
    idle, cycle_cpu_s = idle_lockers(made, 0.0)
    _limit(made, WHOLE_RUN_BYTES)
    with (
        collector(made) as (process, csv),
        made.meter.measure() as work,
        lockers(made.url, made.cores) as during,
    ):
        begun = time.time()
        run_id = trigger(made)
        written = wait_for_rows(csv, pairs)
        _, peak = rss_mib(process.pid)
    work.cpu_s -= len(during) * cycle_cpu_s
    wait_until_closed(made, run_id)
    assert made.connection.xlen(keyspace.RESULTS) == pairs
    work.tell(f"the run and its collection, {pairs} pairs, CPU without the lockers'")
    print(f"    outcomes: {outcomes(csv)}")
    tell_run(made, run_id, begun, written, pairs)
    print(f"    collector: peak {peak:.0f} MiB; CSV {csv.stat().st_size / 1e6:.0f} MB")
    tell_memory(made, work, run_id, pairs)
    tell_lockers(idle, during, "during")
    tell_raw(made, work.cpu_s / pairs)


def show(made: Bench, nodes: int) -> None:
    """Look at the last run as people and programs do."""
    for words in (["show"], ["show", "--json"], ["runs"], ["nodes"]):
        with made.meter.measure() as work:
            ended = run_program(made.command(*words), made.folder / "shown.txt")
        assert ended.code == 0, ended.said
        print(
            f"  ptzmesh {' '.join(words)}: {ended.seconds:.1f} s, peak {ended.peak_rss_mib:.0f} "
            f"MiB, {ended.size} bytes printed"
        )
        work.tell("  of Redis")


def push(made: Bench, nodes: int) -> None:
    """Fill a stream that nobody collects, then collect."""
    sources = max(1, nodes // 5)
    pairs = sources * (nodes - 1)
    _forget(made)
    _limit(made, pairs * PUSH_BYTES_A_PAIR)
    with made.meter.measure() as work, lockers(made.url, made.cores):
        run_id = trigger(made, "--from", ",".join(map(name_of, range(sources))))
        _settle(made, work)
    state = read_run(made.connection, run_id)
    work.tell(f"{pairs} pairs, room for {state.published}")
    print(
        f"    run is {state.status}; stream {work.max_stream_bytes / 2**20:.1f} MiB of "
        f"{pairs * PUSH_BYTES_A_PAIR / 2**20:.1f}; outboxes hold "
        f"{work.max_outbox_bytes / 1e6:.1f} MB of {pairs - state.published} results"
    )
    begun = time.time()
    with made.meter.measure() as work, collector(made) as (process, csv):
        written = wait_for_rows(csv, pairs)
        _, peak = rss_mib(process.pid)
    wait_until_closed(made, run_id)
    work.tell("drained")
    print(
        f"    {pairs} rows in the CSV {written - begun:.1f} s after the collector's start; peak "
        f"{peak:.0f} MiB; stream at most {work.max_stream_bytes / 2**20:.1f} MiB"
    )
    print(f"    outcomes: {outcomes(csv)}")


def lost(made: Bench, nodes: int) -> None:
    """Cut a tenth of the nodes off, and ask them for their rows."""
    dead = range(nodes - max(1, nodes // LOST_SHARE), nodes)
    pairs = len(dead) * (nodes - 1)
    _forget(made)
    _limit(made, WHOLE_RUN_BYTES)
    idle, cycle_cpu_s = idle_lockers(made, 0.0)
    made.fleet.kill(made.fleet.processes[-1])
    time.sleep(liveness.ALIVE_S + 1)
    with made.meter.measure() as work, lockers(made.url, made.cores) as during:
        run_id = trigger(made, "--from", ",".join(map(name_of, dead)), "--to", _all(nodes))
        begun = time.monotonic()
        while not made.connection.xlen(keyspace.RESULTS):
            time.sleep(0.01)
        first = time.monotonic()
        wait_until_closed(made, run_id)
        last = time.monotonic()
    work.cpu_s -= len(during) * cycle_cpu_s
    work.tell(f"{len(dead)} lost sources, {pairs} rows")
    print(
        f"    first row {first - begun:.1f} s after the trigger, then {last - first:.1f} s for "
        f"all: {pairs / (last - first):.0f} rows/s"
    )
    tell_lockers(idle, during, "during")


def trigger(made: Bench, *words: str) -> str:
    """Start a run by the real command, once the mesh is at peace; give its id."""
    begun, limit = time.monotonic(), read_limits(made.connection)["commands_per_s"]
    while (rate := commands_per_s(read_nodes(made.connection))) > limit:
        assert time.monotonic() < begun + DEADLINE_S
        time.sleep(0.5)
    waited = time.monotonic() - begun
    print(f"    nodes send {rate:.0f} commands/s (waited {waited:.0f} s until under {limit})")
    ended = run_program(made.command("run", "--detach", "--new", *words), made.folder / "run.txt")
    assert ended.code == 0, ended.said
    print(f"    ptzmesh run --detach: {ended.seconds:.2f} s, peak {ended.peak_rss_mib:.0f} MiB")
    return cast("list[bytes]", made.connection.zrange(keyspace.RUNS, -1, -1))[0].decode()


def wait_until_closed(made: Bench, run_id: str) -> None:
    """Wait until a run has ended."""
    status = partial(made.connection.hget, keyspace.run_key(run_id), "status")
    wait_until(lambda: status() != b"running", f"run {run_id} has ended", DEADLINE_S)


def outcomes(csv: Path) -> dict[str, int]:
    """Count the rows of a file by outcome."""
    count: dict[str, int] = {}
    with csv.open() as file:
        place = next(file).split(",").index("outcome")
        for line in file:
            word = line.split(",")[place]
            count[word] = count.get(word, 0) + 1
    return count


def _all(nodes: int) -> str:
    return ",".join(map(name_of, range(nodes)))


def _heard(made: Bench) -> None:
    """Have all nodes heard just now."""
    now = scripts.redis_seconds(made.connection)
    names = cast("list[bytes]", made.connection.zrange(keyspace.NODES, 0, -1))
    made.connection.zadd(keyspace.NODES, dict.fromkeys(names, now))


def _limit(made: Bench, size: int) -> None:
    made.connection.hset(keyspace.LIMITS, "stream_bytes", size)


def _forget(made: Bench) -> None:
    """Begin with an empty stream and a file of its own."""
    made.connection.delete(keyspace.RESULTS)
    for path in made.folder.glob("out.csv*"):
        path.unlink()


def _settle(made: Bench, work: Work) -> None:
    """Wait until the stream has not grown for a while, and nodes hold the rest."""
    size, since, deadline = -1, time.monotonic(), time.monotonic() + DEADLINE_S
    while time.monotonic() - since < 5.0 or not work.max_outbox_bytes:
        assert time.monotonic() < deadline, "the stream did not fill"
        if (now := made.connection.xlen(keyspace.RESULTS)) != size:
            size, since = now, time.monotonic()
        time.sleep(0.2)


def _timed(what: str, work: Callable[[], T]) -> T:
    begun = time.monotonic()
    value = work()
    print(f"  {what}: {time.monotonic() - begun:.3f} s")
    return value


def _advance_and_tell(run_id: str) -> None:
    connection = server.connect(os.environ["PTZMESH_REDIS_URL"])
    connection.ping()
    before, begun = own_peak_mib(), time.monotonic()
    advance(connection, run_id)
    seconds = time.monotonic() - begun
    print(json.dumps({"seconds": seconds, "before": before, "peak": own_peak_mib()}))


if __name__ == "__main__":
    assert sys.argv[1] == "advance"
    _advance_and_tell(sys.argv[2])
