"""
What iperf3 says of a way that is closed, provoked: each is `unreachable` or `refused`, never less.

n1 refuses in its own words whatever comes to a port; n0 has routes and a tunnel that lead nowhere.
A kernel without WireGuard cannot say its words here; the unit tests have these.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from lab.commands import ip_batch
from lab.iperf3_runs import asked_of, run_client, server
from lab.net import Lab
from lab.node import Node

pytestmark = [pytest.mark.long, pytest.mark.lab]

#: What n1 does with what comes to each port, and what that is.
WORDS = {
    5301: ("icmpx type admin-prohibited", "unreachable"),
    5302: ("icmpx type host-unreachable", "unreachable"),
    5303: ("icmpx type no-route", "unreachable"),
    5304: ("icmpx type port-unreachable", "refused"),
    5305: ("tcp reset", "refused"),
}
#: The same that one version of IP has, each with the address that it is tried at.
WORDS4 = {
    5306: ("icmp type host-prohibited", "unreachable"),
    5307: ("icmp type net-prohibited", "unreachable"),
    5308: ("icmp type prot-unreachable", "unreachable"),
}
WORDS6 = {
    5309: ("icmpv6 type policy-fail", "unreachable"),
    5310: ("icmpv6 type reject-route", "unreachable"),
}
ALL_WORDS = WORDS | WORDS4 | WORDS6
DIRECTIONS: tuple[dict[str, bool], ...] = ({}, {"reverse": True}, {"bidir": True})
AT_A_TIME = 4


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Lab, Node, Node]]:
    with Lab(2) as lab:
        rules = "\n".join(
            f"meta l4proto tcp tcp dport {port} reject with {word}"
            for port, (word, _) in ALL_WORDS.items()
        )
        lab.nodes[1].run(["nft", "-f", "-"], stdin=table("words", rules))
        yield lab, lab.nodes[0], lab.nodes[1]


def table(name: str, rules: str) -> str:
    hook = "type filter hook input priority 0"
    return f"table inet {name} {{\nchain in {{\n{hook}\n{rules}\n}}\n}}\n"


@contextmanager
def ruled(node: Node, rules: str) -> Iterator[None]:
    node.run(["nft", "-f", "-"], stdin=table("once", rules))
    try:
        yield
    finally:
        node.run(["nft", "delete", "table", "inet", "once"])


def tried(near: Node, far: Node, *wanted: tuple[str, int, dict[str, Any]]) -> list[set[str]]:
    """Try addresses and ports, each with its options; give what the rows of each say."""

    def run(one: tuple[str, int, dict[str, Any]]) -> set[str]:
        address, port, options = one
        asked = asked_of(near, far, port, duration_s=1, bitrate_mbps=4, **options)
        rows = run_client(near, asked | {"far": address})
        assert len(rows) == 1 + bool(options.get("bidir"))
        assert all(row["throughput_mbps"] is None and row["error"] for row in rows)
        return {row["outcome"] for row in rows}

    with ThreadPoolExecutor(AT_A_TIME) as threads:
        return list(threads.map(run, wanted))


def test_word_of_a_firewall_or_router_is_no_bad_reply(pair: tuple[Lab, Node, Node]) -> None:
    _, a, b = pair
    wanted = [(b.address, port, DIRECTIONS[0]) for port in WORDS | WORDS4]
    wanted += [(b.address6, port, DIRECTIONS[0]) for port in WORDS | WORDS6]
    wanted += [(b.address, 5301, direction) for direction in DIRECTIONS[1:]]
    wanted += [(b.address6, 5305, direction) for direction in DIRECTIONS[1:]]
    expected = [{ALL_WORDS[port][1]} for _, port, _ in wanted]
    assert list(zip(wanted, tried(a, b, *wanted), strict=True)) == list(
        zip(wanted, expected, strict=True)
    )


def test_route_or_tunnel_that_leads_nowhere_is_unreachable(pair: tuple[Lab, Node, Node]) -> None:
    _, a, b = pair
    routes = {
        kind: (f"10.98.0.{number}", f"fd98::{number}")
        for number, kind in enumerate(("unreachable", "prohibit", "blackhole", "throw"), 1)
    }
    tunnel = [
        "tuntap add dev tun0 mode tun", "address add 10.99.0.1/24 dev tun0",
        "address add fd99::1/64 dev tun0 nodad", "link set tun0 up",
    ]  # fmt: skip
    lines = [f"route add {kind} {one}" for kind, both in routes.items() for one in both]
    ip_batch([*lines, *tunnel], namespace=a.namespace)
    # A tunnel that is up and has no peer swallows what is sent: nobody says a word.
    silent = tried(a, b, ("10.99.0.2", 5301, {}), ("fd99::2", 5301, {"reverse": True}))
    assert silent == [{"timeout"}] * 2
    ip_batch(["link set tun0 down"], namespace=a.namespace)
    addresses = ["10.99.0.2", "fd99::2", *(one for both in routes.values() for one in both)]
    wanted = [(one, 5301, DIRECTIONS[n % 3]) for n, one in enumerate(addresses)]
    wanted += [(routes["prohibit"][0], 5301, {"udp": True})]
    found = tried(a, b, *wanted)
    assert list(zip(wanted, found, strict=True)) == [(one, {"unreachable"}) for one in wanted]


def test_data_that_are_refused_after_the_first_connection(pair: tuple[Lab, Node, Node]) -> None:
    _, a, b = pair
    second = "tcp dport 5201 ct state new ct count over 1 reject with"
    for direction in DIRECTIONS:
        with ruled(b, f"{second} tcp reset"), server(b) as (_, port):
            assert tried(a, b, (b.address, port, direction)) == [{"refused"}]
    with ruled(b, f"{second} icmpx type admin-prohibited"), server(b) as (_, port):
        assert tried(a, b, (b.address, port, {})) == [{"unreachable"}]
    prohibited = "udp dport 5201 reject with icmpx type admin-prohibited"
    with ruled(b, prohibited), server(b) as (_, port):
        assert tried(a, b, (b.address, port, {"udp": True})) == [{"unreachable"}]


def test_connection_that_is_reset_by_what_reads_it_is_refused(
    pair: tuple[Lab, Node, Node],
) -> None:
    _, a, b = pair
    # While it connects; in its orders; in its data, of which nobody knows how many moved.
    for packets, direction in zip((1, 2, 12), DIRECTIONS, strict=True):
        rule = f"tcp dport 5201 ct original packets > {packets} reject with tcp reset"
        with ruled(b, rule), server(b) as (_, port):
            rows = run_client(a, asked_of(a, b, port, duration_s=1, bitrate_mbps=4, **direction))
        assert {row["outcome"] for row in rows} == {"refused"}, rows
        assert {row.get("streams_connected") for row in rows} == {True if packets == 12 else None}
