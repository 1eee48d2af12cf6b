"""
The echo engine between two namespaces of its own, joined by one veth.

`near` sends, `far` answers and routes.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FAR, FAR_TOO, FAR6 = "10.78.0.2", "10.78.0.3", "fd78::2"
ROUTED, ROUTED6 = "198.51.100.7", "2001:db8::7"

#: Runs a session's worth of engine; prints each series as a JSON object a line.
ENGINE = """
import json, os, sys, time
from dataclasses import asdict
from worker.model.options import PingOptions
from worker.probes.icmp.engine import echo_many
addresses, options, pause_s, stop_after_s = json.loads(sys.argv[1])
begun = time.monotonic()
def should_stop():
    return stop_after_s is not None and time.monotonic() - begun > stop_after_s
asked = PingOptions(**{"warm_up": False, **options})
for index, series in echo_many(addresses, asked, should_stop=should_stop):
    print(json.dumps(asdict(series) | {"index": index}), flush=True)
    time.sleep(pause_s)
print(json.dumps({"wall_s": time.monotonic() - begun, "open": len(os.listdir("/proc/self/fd"))}))
"""
WITHOUT_RAW = ("setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw")


@dataclass(frozen=True)
class Pair:
    """The two namespaces."""

    near: str
    far: str

    def on_near(self, command: str) -> None:
        sh(f"ip netns exec {self.near} {command}")

    def on_far(self, command: str) -> None:
        sh(f"ip netns exec {self.far} {command}")

    def start(
        self,
        addresses: Sequence[str],
        *,
        raw: bool = True,
        pause_s: float = 0.0,
        stop_after_s: float | None = None,
        **options: float,
    ) -> subprocess.Popen[str]:
        options = {"count": 10, "interval_s": 0.02, "wait_s": 0.5} | options
        argument = json.dumps([list(addresses), options, pause_s, stop_after_s])
        limits = () if raw else WITHOUT_RAW
        argv = ["ip", "netns", "exec", self.near, *limits, sys.executable, "-c", ENGINE, argument]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def echo(self, addresses: Sequence[str], **settings: Any) -> list[dict[str, Any]]:
        """Run the engine; give the series in the order of the addresses."""
        series = finish(self.start(addresses, **settings))[:-1]
        return sorted(series, key=lambda one: int(one["index"]))


def finish(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    return [json.loads(line) for line in output.splitlines()]


def times_of(series: dict[str, Any]) -> list[float]:
    """Give the times of the replies; a send that lost the CPU for a moment has none."""
    return [rtt for rtt in series["rtts_ms"] if rtt is not None]


def sh(command: str, stdin: str | None = None) -> None:
    subprocess.run(shlex.split(command), check=True, text=True, input=stdin)


@contextmanager
def joined_namespaces() -> Iterator[Pair]:
    """Make the pair, until the block ends."""
    made = Pair(f"ptzen{os.getpid()}", f"ptzef{os.getpid()}")
    try:
        for name in (made.near, made.far):
            sh(f"ip netns add {name}")
            sh(f"ip -n {name} link set lo up")
        sh(f"ip -n {made.near} link add v0 type veth peer v0 netns {made.far}")
        for name, host in ((made.near, 1), (made.far, 2)):
            sh(f"ip -n {name} address add 10.78.0.{host}/16 dev v0")
            sh(f"ip -n {name} address add fd78::{host}/64 dev v0 nodad")
            sh(f"ip -n {name} link set v0 addrgenmode none")
            sh(f"ip -n {name} link set v0 up")
            sh(f"ip -n {name} address add fe80::{host}/64 dev v0 nodad")
        sh(f"ip -n {made.far} address add {FAR_TOO}/16 dev v0")
        made.on_far("sysctl -qw net.ipv4.ip_forward=1")
        made.on_far("sysctl -qw net.ipv4.icmp_ratelimit=0")
        made.on_far("sysctl -qw net.ipv6.conf.all.forwarding=1")
        made.on_far("sysctl -qw net.ipv6.icmp.ratelimit=0")
        sh(f"ip -n {made.near} route add 198.51.100.0/24 via {FAR}")
        sh(f"ip -n {made.near} route add 2001:db8::/64 via {FAR6}")
        # A route onwards, so that `far` itself finds no fault before nftables does.
        sh(f"ip -n {made.far} route add default dev v0")
        sh(f"ip -n {made.far} -6 route add default dev v0")
        yield made
    finally:
        for name in (made.near, made.far):
            subprocess.run(["ip", "netns", "delete", name], check=False)


@contextmanager
def as_new(joined: Pair) -> Iterator[Pair]:
    """Take back what the block does to the pair: every test may shape it."""
    joined.on_near("sysctl -qw 'net.ipv4.ping_group_range=0 2147483647'")
    yield joined
    for name in (joined.near, joined.far):
        sh(f"ip netns exec {name} nft flush ruleset")
    undo = f"tc -n {joined.near} qdisc del dev v0 root"
    subprocess.run(shlex.split(undo), check=False, stderr=subprocess.DEVNULL)


def nft(namespace: str, hook: str, rule: str, family: str = "inet") -> None:
    chain = f"chain c {{\n type filter hook {hook} priority 0\n {rule}\n }}"
    sh(f"ip netns exec {namespace} nft -f -", stdin=f"table {family} t {{\n {chain}\n}}\n")


kinds = pytest.mark.parametrize("raw", [True, False], ids=["raw", "datagram"])
