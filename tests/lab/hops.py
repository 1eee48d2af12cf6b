"""
Machines in a row: near, two routers, far; each is a network namespace.

Everything of the routers' and the ends' own rules is a test's to set: nftables, sockets, routes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import namespaces
from lab.commands import ip_batch, run

ROOT = Path(__file__).parents[2]

#: Runs the tcp probe; prints each measurement.
TCP = """
import json, sys
from worker.model.options import TcpOptions
from worker.model.plan import TargetNode
from worker.probes.tcp import measure
asked = json.loads(sys.argv[1])
targets = [TargetNode(name=a, address=a) for a in asked.pop("addresses")]
found = measure("r", "me", targets, TcpOptions(**asked), lambda: False)
print(json.dumps([m.to_json() for m in found]))
"""
#: Accepts whatever comes, of both families, and says when it listens.
PROXY = """
import socket, sys
opened = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
print("listens", flush=True)
kept = []
while True:
    kept = [*kept[-500:], opened.accept()[0]]
"""
WITHOUT_ICMP = ("setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw")

#: Address of the near end of each link, and of its far end; IPv6 has the same numbers.
NEAR, HOP1 = "10.79.1.1", "10.79.1.2"
HOP1_FAR, HOP2 = "10.79.2.1", "10.79.2.2"
HOP2_FAR, FAR = "10.79.3.1", "10.79.3.2"
NEAR6, HOP1_6, HOP1_FAR6, FAR6 = "fd79:1::1", "fd79:1::2", "fd79:2::1", "fd79:3::2"
#: A peer of a tunnel of near's: it is reached by a route without a gateway.
PEER = "100.100.0.2"


class Hops:
    """The four machines and their links; `near` has a tunnel to `peer`, too."""

    def __init__(self) -> None:
        """Name the machines."""
        prefix = namespaces.new_prefix()
        names = ("near", "hop1", "hop2", "far", "peer")
        self.near, self.hop1, self.hop2, self.far, self.peer = (prefix + name for name in names)
        self._row = (self.near, self.hop1, self.hop2, self.far)

    def create(self) -> None:
        """Make them."""
        everyone = (*self._row, self.peer)
        ip_batch(f"netns add {name}" for name in everyone)
        for name in everyone:
            ip_batch(["link set lo up"], namespace=name)
            run(["ip", "netns", "exec", name, "sysctl", "-qw", *OPEN])
        for number, (one, other) in enumerate(zip(self._row, self._row[1:], strict=False), 1):
            link = f"link add right type veth peer name left netns {other}"
            ip_batch([link], namespace=one)
            # Who forwards asks for neighbours from a link-local address (net/ipv6/ndisc.c).
            for name, device, host in ((one, "right", 1), (other, "left", 2)):
                ours = (f"10.79.{number}.{host}/24", f"fd79:{number}::{host}/64")
                _address(name, device, *ours, f"fe80::{host}/64")
        for place, name in enumerate(self._row, 1):
            routes = []
            if place < 4:
                routes += [f"route add default via 10.79.{place}.2"]
                routes += [f"-6 route add default via fd79:{place}::2"]
            for net in range(1, place - 1):
                routes += [f"route add 10.79.{net}.0/24 via 10.79.{place - 1}.1"]
                routes += [f"-6 route add fd79:{net}::/64 via fd79:{place - 1}::1"]
            for route in routes:
                run(["ip", "-n", name, *route.split()])
        ip_batch([f"link add tun type veth peer name tun netns {self.peer}"], namespace=self.near)
        _address(self.near, "tun", "100.100.0.1/32")
        _address(self.peer, "tun", f"{PEER}/32")
        ip_batch([f"route add {PEER}/32 dev tun"], namespace=self.near)
        ip_batch(["route add 100.100.0.1/32 dev tun"], namespace=self.peer)

    def remove(self) -> None:
        """Remove them and what runs in them."""
        namespaces.remove((*self._row, self.peer))

    def tcp(
        self, *addresses: str, source: str = "", with_icmp: bool = True, **options: Any
    ) -> dict[str, dict[str, Any]]:
        """Run the tcp probe on near, or on another machine; give each address its row."""
        options = {"count": 3, "interval_s": 0.05, "port": 22} | options
        asked = json.dumps({"addresses": addresses, **options})
        before = () if with_icmp else WITHOUT_ICMP
        argv = [*inside(source or self.near), *before, sys.executable, "-c", TCP, asked]
        return {row["address"]: row for row in json.loads(run(argv).stdout)}

    @contextmanager
    def rules(self, machine: str, *chains: str) -> Iterator[None]:
        """Have nftables rules on a machine until the block ends, for both versions of IP."""
        text = "table inet lab {\n" + "\n".join(chains) + "\n}\n"
        run([*inside(machine), "nft", "-f", "-"], stdin=text)
        try:
            yield
        finally:
            run([*inside(machine), "nft", "delete", "table", "inet", "lab"])

    @contextmanager
    def listening(self, machine: str, port: int) -> Iterator[None]:
        """Have a program accept connections on a machine until the block ends."""
        argv = [*inside(machine), sys.executable, "-c", PROXY, str(port)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "listens\n"
                yield
            finally:
                process.kill()


#: Routers that forward and answer every ICMP; nobody else may ping without privilege.
OPEN = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    "net.ipv4.icmp_ratelimit=0",
    "net.ipv6.icmp.ratelimit=0",
)


def inside(machine: str) -> Sequence[str]:
    """Give what runs a command on a machine."""
    return ("ip", "netns", "exec", machine)


def chain(hook: str, *rules: str) -> str:
    """Give a chain of translation rules."""
    priority = {"output": -100, "prerouting": -100}[hook]
    body = "\n".join(rules)
    return f"chain {hook} {{\n type nat hook {hook} priority {priority}\n {body}\n }}"


def drop(hook: str, rule: str) -> str:
    """Give a chain that drops."""
    return f"chain drop_{hook} {{\n type filter hook {hook} priority 0\n {rule} drop\n }}"


def _address(machine: str, device: str, *addresses: str) -> None:
    lines = [f"link set {device} addrgenmode none up"]
    lines += [f"address add {a} dev {device}{' nodad' if ':' in a else ''}" for a in addresses]
    ip_batch(lines, namespace=machine)
