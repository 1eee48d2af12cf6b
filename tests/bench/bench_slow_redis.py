"""
A Redis behind a slow way: what commands there take, old and new, and of how many round trips.

Needs root: `sudo .venv/bin/python tests/bench/bench_slow_redis.py [MS] [--trace] [--all-behind]`;
some four minutes at 800 ms there and back. Four nodes: the commands run on n0, which is behind the
slow way; n1 to n3 measure, and are beside Redis, or with `--all-behind` behind such a way as well.
A lab with the nodes of each version; round trips are told by MONITOR, as commands of one connection
that came together, and opening a connection is one. Tests with two ends: `bench_slow_transfers.py`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import before
from monitored import Asked, in_words, monitored, trips_of

sys.path.append(str(Path(__file__).resolve().parents[1]))  # behind an older tree's, if there is one

DELAY_MS = 800.0
#: 10 echoes at 0.1 s: the last one leaves 0.9 s after the first.
SERIES_S = 0.9
NODES = "n1,n2,n3"
COMMANDS = {
    "nodes": ["nodes"],
    "run": ["run", "--json", "--nodes", NODES],
    "run --detach": ["run", "--detach", "--new", "--nodes", NODES],
    "runs": ["runs"],
    "show": ["show", "last"],
    "collect": ["collect", "--csv", "{folder}/rows.csv"],
    "collect --list": ["collect", "--list"],
}
#: Seconds; of `run`, beyond its series.
TARGETS_S = {"nodes": 4.0, "run": 8.0}


def main() -> None:
    """Measure both trees; or one, as a process that was started so."""
    given = [word for word in sys.argv[1:] if not word.startswith("--")]
    delay_ms = float(given[0]) if given else DELAY_MS
    if "--one" in sys.argv:
        print(json.dumps(_measured(delay_ms)))
        return
    with before.tree() as old:
        figures = [_of(tree) for tree in (old, before.ROOT)]
    behind = "all nodes" if "--all-behind" in sys.argv else "the command's node"
    print(f"{delay_ms:g} ms there and back, {behind} behind it; seconds (round trips)")
    for name, (took_s, trips) in figures[0].items():
        new_s, new_trips = figures[1][name]
        less_s = SERIES_S if name == "run" else 0.0
        target_s = TARGETS_S.get(name)
        met = "" if target_s is None else ("; met" if new_s - less_s <= target_s else "; MISSED")
        asked = "" if target_s is None else f"; asked {'series + ' if less_s else ''}≤ {target_s:g}"
        print(
            f"  {name}: before {took_s:.1f} ({trips}), now {new_s:.1f} ({new_trips}), "
            f"ratio {new_s / took_s:.2f}{asked}{met}"
        )


def _of(tree: Path) -> dict[str, tuple[float, int]]:
    *shown, last = before.told(tree, "--one", *sys.argv[1:]).splitlines()
    print(f"--- {'now' if tree == before.ROOT else 'before'}", *shown, sep="\n", flush=True)
    figures: dict[str, tuple[float, int]] = json.loads(last)
    return figures


def _measured(delay_ms: float) -> dict[str, tuple[float, int]]:
    """Run the commands in a lab of whatever tree is first on the path."""
    from lab.mesh import LabMesh
    from lab.net import Lab

    figures: dict[str, tuple[float, int]] = {}
    with Lab(4, redis=True) as lab:
        mesh = LabMesh(lab)
        mesh.start_all(lab.nodes[1:])
        for node in lab.nodes if "--all-behind" in sys.argv else lab.nodes[:1]:
            lab.round_trip(node, lab.redis_node, delay_ms)
        # Its scripts are in Redis from then on, as they would be.
        mesh.wait_until_ended(mesh.detach(lab.redis_node, "--nodes", NODES))
        with monitored(mesh.connection) as told:
            for name, words in COMMANDS.items():
                told.clear()
                begun = time.monotonic()
                said = mesh.cli(lab.nodes[0], *(w.format(folder=lab.directory) for w in words))
                took_s = time.monotonic() - begun
                assert said.code == 0, (name, said.err)
                if name == "run":
                    assert len(said.rows) == 6, said.err
                own = {w: d for w, d in told.items() if w.startswith(f"{lab.nodes[0].address}:")}
                trips = [trips_of(each, delay_ms) for each in own.values()]
                figures[name] = took_s, sum(1 + len(each) for each in trips)
                if "--trace" in sys.argv:
                    _print_trace(name, trips)
        mesh.close()
    return figures


def _print_trace(name: str, trips: list[list[Asked]]) -> None:
    """Print each round trip of a command, and when Redis saw it."""
    print(f"{name}:")
    together = sorted((trip for each in trips for trip in each), key=lambda trip: trip[0][0])
    for trip in together:
        print(f"  {trip[0][0] - together[0][0][0]:6.2f} {in_words(trip)}")


if __name__ == "__main__":
    main()
