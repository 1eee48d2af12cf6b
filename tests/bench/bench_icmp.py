"""
The echo engine beside fping and icmplib, on one veth between two network namespaces.

Needs root and fping: `sudo .venv/bin/python tests/bench/bench_icmp.py [REPETITIONS]`. The tools
take turns, so that a change of the machine's mood meets all of them. RTTs of all repetitions are
pooled; the difference to fping of the same size is the lesson, absolute figures are the machine's.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from locker_cycle import rank_ms

ROOT = Path(__file__).parents[2]
SIZES = (1, 16, 64, 250, 1000)
#: icmplib's raw sockets each get every reply: 250 targets already take ten seconds of CPU.
LARGEST_FOR_ICMPLIB = 250
NEAR, FAR = f"ptzbn{os.getpid()}", f"ptzbf{os.getpid()}"
COUNT = 10

OURS = """
import json, resource, sys, time
sys.path.insert(0, {root!r})
from worker.model.options import PingOptions
from worker.probes.icmp.engine import echo_many
begun = time.monotonic()
options = PingOptions(count={count}, interval_s=0.1, warm_up=False)
series = [s for _, s in echo_many({addresses!r}, options)]
wall = time.monotonic() - begun
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps(dict(
    rtts=[r for s in series for r in s.rtts_ms if r is not None], wall=wall,
    received=sum(s.received for s in series), sent=sum(s.sent for s in series),
    cpu=usage.ru_utime + usage.ru_stime - {start_cpu}, kind=series[0].socket_kind,
    drops=max(s.receive_drops for s in series), lag=max(s.send_lag_max_ms for s in series))))
"""

ICMPLIB = """
import asyncio, json, resource, sys, time
import icmplib
begun = time.monotonic()
hosts = asyncio.run(icmplib.async_multiping(
    {addresses!r}, count={count}, interval=0.1, timeout=1, concurrent_tasks=1000,
    privileged={privileged}))
wall = time.monotonic() - begun
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps(dict(
    rtts=[r for h in hosts for r in h.rtts], wall=wall,
    received=sum(h.packets_received for h in hosts), sent=sum(h.packets_sent for h in hosts),
    cpu=usage.ru_utime + usage.ru_stime - {start_cpu})))
"""

IDLE = "import resource, {modules}; u = resource.getrusage(0); print(u.ru_utime + u.ru_stime)"
WITHOUT_RAW = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]


def run(*argv: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; a failure is the benchmark's."""
    return subprocess.run(argv, check=True, text=True, **kwargs)  # type: ignore[call-overload, no-any-return]  # one pass-through for every option


@contextlib.contextmanager
def pair_of_namespaces(addresses: int) -> Iterator[list[str]]:
    """Join two new namespaces by a veth and put addresses on the far end; always removed."""
    far = [f"10.77.{8 + number // 250}.{1 + number % 250}" for number in range(addresses)]
    try:
        for name in (NEAR, FAR):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", NEAR, "link", "add", "v0", "type", "veth", "peer", "v0", "netns", FAR)
        run("ip", "-n", NEAR, "address", "add", "10.77.0.1/16", "dev", "v0")
        batch = "".join(f"address add {address}/16 dev v0\n" for address in far)
        run("ip", "-n", FAR, "-batch", "-", input=batch)
        for name in (NEAR, FAR):
            run("ip", "-n", name, "link", "set", "v0", "up")
        # One ARP entry an address: the default table holds 1,024 of the whole machine's.
        mac = json.loads(run("ip", "-n", FAR, "-j", "link", "show", "v0", stdout=-1).stdout)[0]
        neighbours = "".join(
            f"neighbour replace {address} lladdr {mac['address']} dev v0\n" for address in far
        )
        run("ip", "-n", NEAR, "-batch", "-", input=neighbours)
        group = "net.ipv4.ping_group_range=0 2147483647"
        run("ip", "netns", "exec", NEAR, "sysctl", "-qw", group)
        time.sleep(2)  # the link's own chatter (IPv6 duplicate address detection) ends
        yield far
    finally:
        for name in (NEAR, FAR):
            subprocess.run(["ip", "netns", "delete", name], check=False)


def python(source: str, *prefix: str) -> dict[str, object]:
    """Run Python in the near namespace and read the JSON that it prints."""
    argv = ["ip", "netns", "exec", NEAR, *prefix, sys.executable, "-c", source]
    return dict(json.loads(run(*argv, stdout=-1).stdout))


def fping(addresses: list[str]) -> dict[str, object]:
    """Run fping and read the times it prints on stderr, one line an address."""
    argv = ["fping", "-q", "-C", str(COUNT), "-p", "100", "-i", "1", *addresses]
    before, begun = os.times(), time.monotonic()
    done = subprocess.run(
        ["ip", "netns", "exec", NEAR, *argv], check=False, text=True, stderr=subprocess.PIPE
    )
    wall, after = time.monotonic() - begun, os.times()
    answers = [line.split(" : ")[1] for line in done.stderr.splitlines() if " : " in line]
    rtts = [float(number) for answer in answers for number in re.findall(r"[\d.]+", answer)]
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return {"rtts": rtts, "wall": wall, "cpu": cpu, "received": len(rtts)}


def main() -> None:
    """Print one line a size and tool."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    idle = {
        modules: float(
            run(sys.executable, "-c", IDLE.format(modules=modules), stdout=-1, cwd=ROOT).stdout
        )
        for modules in ("worker.probes.icmp.engine", "asyncio, icmplib")
    }
    print("| targets | tool | median µs | p99 µs | Δ median | Δ p99 | replies | wall s | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|")
    with pair_of_namespaces(max(SIZES)) as far:
        for size in SIZES:
            compare(far[:size], repetitions, idle)


def compare(addresses: list[str], repetitions: int, idle: dict[str, float]) -> None:
    """Let the tools take turns on one size and print their lines."""
    fill = {"addresses": addresses, "count": COUNT, "root": str(ROOT)}
    ours = OURS.format(**fill, start_cpu=idle["worker.probes.icmp.engine"])
    results: dict[str, list[dict[str, object]]] = defaultdict(list)
    for repetition in range(repetitions):
        results["fping"].append(fping(addresses))
        results["ptzmesh raw"].append(python(ours))
        results["ptzmesh datagram"].append(python(ours, *WITHOUT_RAW))
        if repetition < 2 and len(addresses) <= LARGEST_FOR_ICMPLIB:
            for privileged, name in ((True, "icmplib raw"), (False, "icmplib datagram")):
                source = ICMPLIB.format(
                    **fill, privileged=privileged, start_cpu=idle["asyncio, icmplib"]
                )
                results[name].append(python(source))
    base: list[float] = []
    for name, runs in results.items():
        rtts = [1000 * rtt for one in runs for rtt in one["rtts"]]  # type: ignore[attr-defined]  # JSON
        base = base or rtts
        median, p99 = statistics.median(rtts), rank_ms(rtts, 99)
        wall, cpu = (statistics.median(float(str(one[k])) for one in runs) for k in ("wall", "cpu"))
        received = sum(int(str(one["received"])) for one in runs)
        print(
            f"| {len(addresses)} | {name} | {median:.0f} | {p99:.0f} "
            f"| {median - statistics.median(base):+.0f} | {p99 - rank_ms(base, 99):+.0f} "
            f"| {received} of {len(runs) * COUNT * len(addresses)} | {wall:.2f} | {cpu:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
