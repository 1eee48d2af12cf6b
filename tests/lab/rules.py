"""
What happens to frames between two nodes, as one nftables ruleset.

The rules sit at the ingress hook of the bridge's ports, where a frame has just left its sender: the
sender's kernel takes it for sent, so a lost packet gives no EPERM as a drop at its output would.
Neighbour discovery and ARP always pass, so that a lost or cut path is silent and not "unreachable".
Needs nftables of the netdev family with fwd, reject and numgen (Linux 5.9 or newer).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

#: MAC of the sender, MAC of the receiver.
Pair = tuple[str, str]
Proto = Literal["icmp", "udp", "tcp", "all"]

#: The TAP device behind which frames wait out their delay.
RELAY_DEVICE = "relay"

_PROTO_MATCH: dict[Proto, str] = {
    "icmp": "meta l4proto { icmp, ipv6-icmp }",
    "udp": "meta l4proto udp",
    "tcp": "meta l4proto tcp",
    "all": "meta protocol { ip, ip6 }",
}


@dataclass(frozen=True)
class Delay:
    """
    Time added to each packet one way: `ms`, give or take up to `jitter_ms`, never reordered.

    One that comes after a pause (`relay.DOZE_S`) waits for `wake_ms`, as do those behind it.
    """

    ms: float
    jitter_ms: float = 0.0
    wake_ms: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a jitter that would ask for a negative delay."""
        if not 0 <= self.jitter_ms <= self.ms:
            raise ValueError(f"jitter_ms ({self.jitter_ms}) must be within 0 and ms ({self.ms})")


@dataclass
class Impairments:
    """All that is wrong with the lab's paths at one moment, by ordered pair."""

    delays: dict[Pair, Delay] = field(default_factory=dict)
    losses_pct: dict[tuple[Pair, Proto], float] = field(default_factory=dict)
    silent_cuts: set[Pair] = field(default_factory=set)
    refusing_cuts: set[Pair] = field(default_factory=set)
    swallowed_above_bytes: dict[Pair, int] = field(default_factory=dict)

    def clear(self) -> None:
        """Heal every path."""
        self.delays.clear()
        self.losses_pct.clear()
        self.silent_cuts.clear()
        self.refusing_cuts.clear()
        self.swallowed_above_bytes.clear()


def ruleset(impairments: Impairments, ports: Iterable[str]) -> str:
    """
    Input for `nft -f` that replaces all rules of the lab in one transaction.

    Args:
        impairments: What shall happen.
        ports: Devices of the bridge at which frames arrive from nodes.
    """
    devices = ", ".join(f'"{port}"' for port in ports)
    return "\n".join(
        [
            "add table netdev lab",
            "delete table netdev lab",
            "table netdev lab {",
            "chain arriving {",
            f"type filter hook ingress devices = {{ {devices} }} priority 0; policy accept;",
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
            *_rules(impairments),
            "}",
            "}\n",
        ]
    )


def _rules(impairments: Impairments) -> Iterator[str]:
    """First what cuts, then what loses, then what delays: a lost frame need not wait."""
    if cuts := impairments.silent_cuts:
        yield f"{_between(cuts)} meta protocol {{ ip, ip6 }} drop"
    if cuts := impairments.refusing_cuts:
        yield f"{_between(cuts)} meta l4proto tcp reject with tcp reset"
        others = "meta protocol { ip, ip6 }"
        yield f"{_between(cuts)} {others} reject with icmpx type host-unreachable"
    for pair, size in impairments.swallowed_above_bytes.items():
        yield f"{_between([pair])} meta protocol {{ ip, ip6 }} meta length > {size} drop"
    alike: dict[tuple[Proto, float], list[Pair]] = defaultdict(list)
    for (pair, proto), pct in impairments.losses_pct.items():
        alike[proto, pct].append(pair)
    for (proto, pct), pairs in alike.items():
        chance = f"numgen random mod 1000000 < {round(pct * 10_000)}"
        yield f"{_between(pairs)} {_PROTO_MATCH[proto]} {chance} drop"
    if delays := impairments.delays:
        yield f'{_between(delays)} meta protocol {{ ip, ip6 }} fwd to "{RELAY_DEVICE}"'


def _between(pairs: Iterable[Pair]) -> str:
    listed = ", ".join(f"{source} . {target}" for source, target in sorted(pairs))
    return f"ether saddr . ether daddr {{ {listed} }}"
