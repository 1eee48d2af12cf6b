"""
Two nodes behind a slow way to Redis: what a run of ping, redis and throughput takes, old and new.

Needs root: `sudo .venv/bin/python tests/bench/bench_slow_transfers.py [MS]`; some five minutes at
800 ms there and back. Printed is for each of the two trees, each in a lab of its own:

- the run, from its record to its end, and how much of that its series take by themselves;
- how many connections each node made, and how many round trips on them; these are told by MONITOR,
  as commands of one connection that came together;
- with `--trace`, each of the round trips, and when; with `--logs` what the nodes logged; with
  `--new` only the new tree's.

The run is started beside Redis: what a trigger behind the slow way adds is not in it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import before
from monitored import in_words, monitored, trips_of

sys.path.append(str(Path(__file__).resolve().parents[1]))  # behind an older tree's, if there is one

DELAY_MS = 800.0
PROBES = ("ping", "redis", "throughput")
ENDED_S = 600.0


def main() -> None:
    """Measure both trees; or one, as a process that was started so."""
    given = [word for word in sys.argv[1:] if not word.startswith("--")]
    delay_ms = float(given[0]) if given else DELAY_MS
    if "--one" in sys.argv:
        _measure(delay_ms)
        return
    with before.tree() as old:
        for name, tree in (("before", old), ("now", before.ROOT)):
            if tree == before.ROOT or "--new" not in sys.argv:
                print(f"--- {name}, {delay_ms:g} ms there and back", flush=True)
                print(before.told(tree, "--one", *sys.argv[1:]), end="", flush=True)


def _measure(delay_ms: float) -> None:
    """Do the run in a lab of whatever tree is first on the path, and print its figures."""
    from lab.mesh import LabMesh
    from lab.net import Lab
    from waiting import wait_until

    from coordinator.results.results import read

    with Lab(2, redis=True) as lab:
        for node in lab.nodes:
            lab.round_trip(node, lab.redis_node, delay_ms)
        mesh = LabMesh(lab)
        mesh.start_all()
        # Each prober and responder waits for jobs: to begin takes RQ twenty round trips.
        wait_until(
            lambda: sum("b" in one["flags"] for one in mesh.connection.client_list()) >= 4,
            "all workers wait for jobs",
            ENDED_S,
        )
        asked = [word for probe in PROBES for word in ("--probe", probe)]
        with monitored(mesh.connection) as trips:
            run = mesh.detach(lab.redis_node, *asked)
            state = mesh.wait_until_ended(run, ENDED_S)
        found = [one for _, one in read(mesh.connection, run=run)]
        if "--trace" in sys.argv:
            _print_trace(trips, lab.nodes, state.created, delay_ms)
        assert state.closed is not None
        took_s = state.closed - state.created
        series_s = 0.0
        for probe in PROBES:
            ours = [one for one in found if one.probe == probe]
            lasts = [float(getattr(one.detail, _LASTS[probe], None) or 0.0) for one in ours]
            # Tests of two nodes come one after the other; all else at once.
            own_s = sum(lasts) if probe == "throughput" else max(lasts, default=0.0)
            series_s += own_s
            outcomes = sorted(f"{one.source}→{one.target} {one.outcome.value}" for one in ours)
            print(f"  {probe}: {own_s:.1f} s by itself; {', '.join(outcomes)}")
        _print_counts(trips, lab.nodes, delay_ms)
        print(f"  run {took_s:.1f} s, its series {series_s:.1f} s: + {took_s - series_s:.1f} s")
        if "--logs" in sys.argv:
            print(mesh.logs())
        mesh.close()


_LASTS = {"ping": "elapsed_s", "redis": "elapsed_s", "throughput": "test_s"}


def _print_counts(trips: Any, nodes: Any, delay_ms: float) -> None:
    """Print how many round trips each node's connections made."""
    for node in nodes:
        own = [
            trips_of(told, delay_ms)
            for where, told in trips.items()
            if where.startswith(node.address + ":")
        ]
        print(f"  {node.name}: {len(own)} connections, {sum(map(len, own))} round trips on them")


def _print_trace(trips: Any, nodes: Any, since: float, delay_ms: float) -> None:
    """Print every round trip of every node, in the order of time."""
    names = {node.address: node.name for node in nodes}
    lines = []
    for where, told in trips.items():
        name = names.get(where.rpartition(":")[0], "hub")
        for trip in trips_of(told, delay_ms):
            lines.append((trip[0][0] - since, name, where.rpartition(":")[2], in_words(trip)))
    for at, name, port, shown in sorted(lines):
        print(f"    {at:7.2f} {name:>4} {port:>5} {shown}")


if __name__ == "__main__":
    main()
