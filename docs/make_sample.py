"""
Writes docs/analyse/mesh.csv: `python docs/make_sample.py`, as root.

A real mesh of five nodes in network namespaces: a hub and two cameras on a LAN, two cameras behind
a shaped, jittery and lossy link, one of which gets worse half-way.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from lab.mesh import LabMesh  # noqa: E402 - it is not installed
from lab.net import Lab  # noqa: E402

CSV = ROOT / "docs" / "analyse" / "mesh.csv"
NAMES = ("hub", "roof-1", "roof-2", "yard-1", "yard-2")
ROUNDS = 12


def main() -> None:
    """Measure, and write the file again."""
    with Lab(len(NAMES), redis=True) as lab:
        hub, *_, yard_1, yard_2 = lab.nodes
        for far in (yard_1, yard_2):
            lab.shape(far, up_mbps=12, down_mbps=40)
            for near in (node for node in lab.nodes if node is not far):
                lab.round_trip(far, near, 38, jitter_ms=12)
        mesh = LabMesh(lab)
        for node, name in zip(lab.nodes, NAMES, strict=True):
            mesh.start(node, name=name)
        mesh.wait_until_alive(*NAMES)
        for count in range(ROUNDS):
            if count == ROUNDS // 2:
                for near in (node for node in lab.nodes if node is not yard_2):
                    lab.loss(yard_2, near, 8)
            done = mesh.cli(hub, "run", "--new", "--count", "20", "--json")
            assert done.code == 0, done.err
            time.sleep(2)
        done = mesh.cli(hub, "run", "--probe", "throughput", "--duration", "2", "--json")
        print(done.err, file=sys.stderr)
        CSV.unlink(missing_ok=True)
        assert mesh.cli(hub, "collect", "--csv", str(CSV)).code == 0
        mesh.close()


if __name__ == "__main__":
    main()
