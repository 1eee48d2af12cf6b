"""Networks behind routers of the lab, all with the same private addresses, as homes have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lab import namespaces
from lab.commands import ip_batch
from lab.node import Node

ROUTER = "192.168.1.1"
MASQUERADE = """table ip behind {
  chain out {
    type nat hook postrouting priority 100
    oifname "eth0" masquerade
  }
}
"""


@contextmanager
def network_behind(router: Node, machines: Sequence[tuple[str, int]]) -> Iterator[list[Node]]:
    """
    Put machines behind a node of the lab, which routes and masquerades for them, until the end.

    Args:
        router: The node.
        machines: Name and last part of the address in 192.168.1.0/24 of each.
    """
    prefix = router.namespace.removesuffix(router.name)
    made = []
    for name, number in machines:
        node = Node(name, f"{prefix}{name}", number)
        node.address = f"192.168.1.{number}"
        made.append(node)
    ip_batch(f"netns add {node.namespace}" for node in made)
    try:
        ip_batch(
            ["link add lan type bridge", f"address add {ROUTER}/24 dev lan", "link set lan up"],
            namespace=router.namespace,
        )
        router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        router.run(["nft", "-f", "-"], stdin=MASQUERADE)
        for node in made:
            _join(router, node)
        router.wait_for_links()
        yield made
    finally:
        for node in made:
            node.reap()
        namespaces.remove([node.namespace for node in made])


def _join(router: Node, node: Node) -> None:
    port = f"to-{node.name}"
    peer = f"peer name eth0 gso_max_segs 1 netns {node.namespace}"
    ip_batch(
        [f"link add {port} gso_max_segs 1 type veth {peer}", f"link set {port} master lan up"],
        namespace=router.namespace,
    )
    ip_batch(
        [
            "link set lo up",
            "link set eth0 up",
            f"address add {node.address}/24 dev eth0",
            f"route add default via {ROUTER}",
        ],
        namespace=node.namespace,
    )
