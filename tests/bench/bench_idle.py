"""
What an idle node sends and gets on the wire, beside one of the code before, in the same minutes.

Needs root and tcpdump: `sudo .venv/bin/python tests/bench/bench_idle.py [SECONDS]`, 600 by default;
in an hour both tidy RQ's registries at least once. Counted are Ethernet frames, both ways, at the
interface of each node's namespace; tcpdump tells what they are for.
"""

from __future__ import annotations

import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import before
from lab.mesh import LabMesh
from lab.net import Lab
from lab.node import Node
from lab.redis_server import PORT
from programs import worker_argv

from worker.wire.registry import read_nodes

#: Of a day, both ways.
TARGET_MB = 4.0
DAY_S = 86_400.0
#: The registration and RQ's first look at its registries are over by then.
SETTLE_S = 20.0
COUNTERS = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")
OLD, NEW = "before", "now"


def main() -> None:
    """Print bytes and packets of both nodes, and the ratio."""
    seconds = float(sys.argv[1]) if sys.argv[1:] else 600.0
    with before.tree() as tree, Lab(2, redis=True) as lab:
        mesh = LabMesh(lab)
        nodes = dict(zip((OLD, NEW), lab.nodes, strict=True))
        old = nodes[OLD]
        argv = worker_argv(old.name, mesh.state_dir(old.name), program=[str(tree / "ptzmesh")])
        env = {**mesh.env, "PYTHONPATH": str(tree)}
        old.start(argv, env=env, log=mesh.log(old.name))
        mesh.start(nodes[NEW])
        mesh.wait_until_alive(*(node.name for node in lab.nodes))
        time.sleep(SETTLE_S)
        for node in lab.nodes:
            node.start(["tcpdump", "-i", "eth0", "-U", "-w", str(_capture(lab, node))])
        first, begun = {name: _counters(node) for name, node in nodes.items()}, time.time()
        time.sleep(seconds)
        last, over = {name: _counters(node) for name, node in nodes.items()}, time.time()
        said = {one.name: one.redis_bytes_per_day for one in read_nodes(mesh.connection)}
        captures = {name: _capture(lab, node).read_bytes() for name, node in nodes.items()}
        mesh.close()
    day = DAY_S / (over - begun)
    total_mb = {}
    for name, node in nodes.items():
        moved = [b - a for a, b in zip(first[name], last[name], strict=True)]
        total_mb[name] = sum(moved[:2]) * day / 1e6
        print(f"{name}: {total_mb[name]:.2f} MB a day, {sum(moved[2:]) * day:,.0f} packets")
        _print_parts(captures[name], begun, over)
        if said[node.name] is not None:
            print(f"  the node itself says {said[node.name] / 1e6:.2f} MB a day to Redis")
    met = "met" if total_mb[NEW] <= TARGET_MB else "MISSED"
    ratio = total_mb[NEW] / total_mb[OLD]
    print(f"ratio {ratio:.3f} over {over - begun:.0f} s; target <= {TARGET_MB} MB a day: {met}")


def _capture(lab: Lab, node: Node) -> Path:
    return lab.directory / f"{node.name}.pcap"


def _counters(node: Node) -> list[int]:
    paths = [f"/sys/class/net/eth0/statistics/{name}" for name in COUNTERS]
    return [int(line) for line in node.run(["cat", *paths]).stdout.split()]


class Frame(NamedTuple):
    """One frame: when it passed, what it takes, and what a TCP segment of Redis' is part of."""

    at: float
    length: int
    port: int
    to_redis: bool
    payload: bytes


def _frames(capture: bytes) -> Iterator[Frame]:
    place = 24  # after the file's header
    while place + 16 <= len(capture):
        seconds, micros, held, length = struct.unpack_from("=4I", capture, place)
        frame, place = capture[place + 16 : place + 16 + held], place + 16 + held
        if frame[12:14] != b"\x08\x00" or frame[23] != 6:
            yield Frame(seconds + micros / 1e6, length, 0, False, b"")
            continue
        tcp = frame[14 + (frame[14] & 15) * 4 : 14 + int.from_bytes(frame[16:18], "big")]
        source, target = struct.unpack_from(">2H", tcp)
        to_redis = target == PORT
        payload = tcp[(tcp[12] >> 4) * 4 :]
        yield Frame(
            seconds + micros / 1e6, length, source if to_redis else target, to_redis, payload
        )


def _print_parts(capture: bytes, begun: float, over: float) -> None:
    """Tell which commands took what, their answers and acknowledgements included."""
    sizes, packets = Counter[str](), Counter[str]()
    latest: dict[int, str] = {}
    for frame in _frames(capture):
        if frame.to_redis and frame.payload.startswith(b"*"):
            latest[frame.port] = frame.payload.split(b"\r\n")[2].decode(errors="replace")
        what = latest.get(frame.port, "keepalive") if frame.port else "ARP, IPv6"
        if frame.port and len(frame.payload) <= 1 and frame.length <= 67:
            what = f"{what}: packets without data"
        if begun <= frame.at <= over:
            sizes[what] += frame.length
            packets[what] += 1
    day = DAY_S / (over - begun)
    for what, size in sizes.most_common():
        print(f"  {size * day / 1e6:6.2f} MB, {packets[what] * day:8,.0f} packets: {what}")


if __name__ == "__main__":
    main()
