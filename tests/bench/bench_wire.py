"""
Bytes between Redis and a mesh of 16 for each pair of a run of 10 echoes; before and now.

Needs root: `sudo .venv/bin/python tests/bench/bench_wire.py`; two minutes. Counted at the interface
of Redis' machine, Ethernet, both ways: all that the nodes and the command `ptzmesh run` exchange
with it, less what the idle mesh does. Nobody collects.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

# Behind PYTHONPATH: the mesh of the code before is made by the helpers of that time.
sys.path.append(str(Path(__file__).resolve().parents[1]))

import before
from lab.mesh import LabMesh, mesh_of

NODES, ROUNDS = 16, 5
#: The registration is over; as long as several heartbeats.
SETTLE_S, IDLE_S = 10.0, 30.0
#: What a run leaves to do is done.
AFTER_S = 3.0
ASKED = 1200


def main() -> None:
    """Print the bytes of a pair in each round, and the medians."""
    if sys.argv[1:] == ["rounds"]:
        print(json.dumps(rounds()))
        return
    medians = {}
    with before.tree() as old:
        for name, tree in (("before", old), ("now", before.ROOT)):
            told = json.loads(before.told(tree, "rounds"))
            medians[name] = statistics.median(told)
            print(f"{name}: {', '.join(f'{each:.0f}' for each in told)} B a pair", flush=True)
    was, is_ = medians["before"], medians["now"]
    print(
        f"medians: {was:.0f} B before, {is_:.0f} B now, ratio {is_ / was:.2f}; asked for: {ASKED} "
        f"B: {'met' if is_ <= ASKED else 'MISSED'}"
    )


def rounds() -> list[float]:
    """Give the bytes of a pair of some runs, one after the other."""
    with mesh_of(NODES) as mesh:
        run(mesh)  # scripts are in Redis
        time.sleep(SETTLE_S)
        before_idle = carried(mesh)
        time.sleep(IDLE_S)
        idle_per_s = (carried(mesh) - before_idle) / IDLE_S
        told = []
        for _ in range(ROUNDS):
            begun, begun_at = carried(mesh), time.monotonic()
            pairs = run(mesh)
            time.sleep(AFTER_S)
            seconds = time.monotonic() - begun_at
            told.append((carried(mesh) - begun - idle_per_s * seconds) / pairs)
    return told


def run(mesh: LabMesh) -> int:
    """Run a full mesh from a node, whose command follows it; give its pairs."""
    said = mesh.cli(mesh.lab.nodes[0], "run", "--json")
    assert said.code == 0, said.err
    return len(said.rows)


def carried(mesh: LabMesh) -> int:
    """Give the bytes that Redis' interface has received and sent."""
    (link,) = json.loads(
        mesh.lab.redis_node.run(["ip", "-json", "-stats", "link", "show", "eth0"]).stdout
    )
    return sum(int(link["stats64"][way]["bytes"]) for way in ("rx", "tx"))


if __name__ == "__main__":
    main()
