"""The echo engine on a real kernel: what routers, firewalls and this host refuse."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lab.echoes import (
    FAR,
    FAR6,
    FAR_TOO,
    ROOT,
    ROUTED,
    ROUTED6,
    WITHOUT_RAW,
    Pair,
    kinds,
    nft,
    sh,
)

pytestmark = [pytest.mark.lab, pytest.mark.quiet]


@kinds
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("host-unreachable", "host_unreachable"),
        ("admin-prohibited", "prohibited"),
        ("net-unreachable", "network_unreachable"),
    ],
)
def test_a_routers_error_is_its_targets_and_nobody_elses(
    joined: Pair, raw: bool, code: str, kind: str
) -> None:
    nft(joined.far, "forward", f"reject with icmp type {code}")
    good, bad, also_good = joined.echo([FAR, ROUTED, FAR6], raw=raw)
    assert (good["received"], good["error"]) == (10, None)
    assert (also_good["received"], also_good["error"]) == (10, None)
    assert (bad["sent"], bad["received"], bad["errors"], bad["refused"]) == (10, 0, 10, 0)
    assert bad["error_kind"] == kind
    assert bad["error"] == f"{kind.replace('_', ' ')}, said {FAR}"


@kinds
def test_an_ipv6_routers_error_is_read_too(joined: Pair, raw: bool) -> None:
    nft(joined.far, "forward", "reject with icmpv6 type admin-prohibited")
    good, bad = joined.echo([FAR6, ROUTED6], raw=raw)
    assert (good["received"], good["error"]) == (10, None)
    assert bad["errors"] == 10
    assert bad["error"] == f"prohibited, said {FAR6}"


@kinds
def test_a_route_that_is_too_long_is_ttl_exceeded(joined: Pair, raw: bool) -> None:
    nft(joined.far, "prerouting", f"ip daddr {ROUTED} ip ttl set 1")
    (one,) = joined.echo([ROUTED], raw=raw, count=3)
    assert (one["received"], one["error_kind"]) == (0, "ttl_exceeded")


@kinds
def test_a_firewall_of_our_own_refuses_and_loses_nothing(joined: Pair, raw: bool) -> None:
    nft(joined.near, "output", f"ip daddr {FAR_TOO} drop")
    good, bad, nowhere = joined.echo([FAR, FAR_TOO, "203.0.113.9"], raw=raw)
    assert (good["received"], good["refused"]) == (10, 0)
    assert (bad["sent"], bad["refused"], bad["error_kind"]) == (0, 10, "prohibited")
    assert (nowhere["sent"], nowhere["error_kind"]) == (0, "network_unreachable")
    assert nowhere["error"] == "network unreachable, said this host: Network is unreachable"


@kinds
def test_echoes_that_our_own_full_queue_drops_are_sent_again_and_not_lost(
    joined: Pair, raw: bool
) -> None:
    sh(f"tc -n {joined.near} qdisc add dev v0 root tbf rate 200kbit burst 300 limit 300")
    (one,) = joined.echo([FAR], raw=raw, count=100, interval_s=0.001)
    assert (one["sent"], one["received"], one["refused"]) == (100, 100, 0)
    assert one["send_lag_max_ms"] > 1


def test_addresses_without_a_socket_do_not_stop_the_others(joined: Pair) -> None:
    found = joined.echo(["camera-3.lan", FAR, "fe80::2", "fe80::2%nosuch0"], count=3)
    assert [one["received"] for one in found] == [0, 3, 0, 0]
    assert [one["refused"] for one in found] == [3, 0, 3, 3]


def test_without_any_right_the_error_names_the_command_that_fixes_it(joined: Pair) -> None:
    joined.on_near("sysctl -qw 'net.ipv4.ping_group_range=1 0'")
    source = (
        "from worker.model.options import PingOptions\n"
        "from worker.probes.icmp.engine import *\n"
        "print(icmp_capability())\n"
        "try: list(echo_many(['127.0.0.1'], PingOptions()))\n"
        "except IcmpNotPermitted as exc: print(exc)\n"
    )
    argv = ["ip", "netns", "exec", joined.near, *WITHOUT_RAW, sys.executable, "-c", source]
    done = subprocess.run(argv, check=True, text=True, stdout=subprocess.PIPE, cwd=ROOT)
    assert done.stdout.splitlines() == [
        "none",
        'ping needs CAP_NET_RAW, or: sudo sysctl -w net.ipv4.ping_group_range="0 2147483647"',
    ]
