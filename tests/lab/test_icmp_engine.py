"""
The echo engine on a real kernel, against what nftables, netem and routes really do.

Where a link is to be slow, it is one of the lab's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest

from lab.conftest import MakeLab
from lab.echoes import (
    FAR,
    FAR6,
    FAR_TOO,
    ROUTED6,
    Pair,
    finish,
    kinds,
    nft,
    sh,
    times_of,
)
from lab.relay import DOZE_S

pytestmark = [pytest.mark.lab, pytest.mark.quiet]


def certain(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Ask until the echo before the series has a time: one whose send lost the CPU has none."""
    tries = (ask() for _ in range(10))
    return next(one for one in tries if one["wake_ms"] is not None)


@kinds
def test_every_family_and_a_repeated_address_answer_whole(joined: Pair, raw: bool) -> None:
    addresses = [FAR, FAR6, "fe80::2%v0", FAR, "127.0.0.1", "::1"]
    found = joined.echo(addresses, raw=raw)
    assert [one["address"] for one in found] == addresses
    # An echo that was late by more than half an interval makes all later ones as late.
    late_s = sum(one["send_lag_max_ms"] for one in found) / 1e3
    for one in found:
        assert (one["sent"], one["received"], one["refused"]) == (10, 10, 0)
        assert (one["duplicates"], one["late"], one["damaged"]) == (0, 0, 0)
        assert one["socket_kind"] == ("raw" if raw else "datagram")
        assert (one["reply_ttls"], one["answered_by"], one["wake_ms"]) == ([64], [], None)
        assert 0 < median(times_of(one)) < 1
        assert 0.018 <= one["interval_mean_s"] <= 0.022 + late_s
        assert abs(one["started_ns"] / 1e9 - time.time()) < 30


def test_one_echo_in_four_dropped_is_25_percent_lost(joined: Pair) -> None:
    drop = "icmp type echo-request numgen inc mod 4 == 0 drop"
    nft(joined.far, "input", drop)
    (one,) = joined.echo([FAR], count=40, interval_s=0.01)
    assert (one["sent"], one["received"]) == (40, 30)
    assert one["rtts_ms"].count(None) == 10 + one["times_refused"]
    assert one["rtts_ms"][::4] == [None] * 10


@kinds
def test_duplicates_are_counted_apart(joined: Pair, raw: bool) -> None:
    rule = "icmp type echo-reply meta mark 0 meta mark set 1 dup to v0"
    nft(joined.far, "egress device v0", rule, family="netdev")
    (one,) = joined.echo([FAR], raw=raw)
    assert (one["received"], one["duplicates"]) == (10, 10)


@kinds
def test_a_delayed_link_reads_its_delay(lab: MakeLab, raw: bool) -> None:
    made = lab(2)
    near, far = made.nodes
    made.round_trip(near, far, 20)
    made.allow_datagram_icmp(near)
    addresses = [far.address, far.address6]
    for one in Pair(near.namespace, far.namespace).echo(addresses, raw=raw, count=50, wait_s=5):
        assert min(times_of(one)) >= 20
        assert median(times_of(one)) < 21


def test_replies_after_the_wait_are_late_and_lost(lab: MakeLab) -> None:
    made = lab(2)
    near, far = made.nodes
    made.round_trip(near, far, 100)
    (one,) = Pair(near.namespace, far.namespace).echo([far.address], count=50, wait_s=0.05)
    # The last echoes' replies come after the series is given up, unless this takes its time.
    assert one["received"] == 0
    assert 5 <= one["late"] <= 50
    assert one["rtts_ms"] == [None] * 50


@kinds
def test_a_reply_from_another_address_is_no_reply_and_says_whose_it_was(
    joined: Pair, raw: bool
) -> None:
    nft(
        joined.far,
        "output",
        f"icmp type echo-reply ip saddr {FAR} ip saddr set {FAR_TOO}\n"
        f"icmpv6 type echo-reply ip6 saddr {FAR6} ip6 saddr set {ROUTED6}",
    )
    first, second, third = joined.echo([FAR, FAR_TOO, FAR6], raw=raw, warm_up=True)
    assert (first["received"], second["received"], third["received"]) == (0, 10, 0)
    assert (first["answered_by"], third["answered_by"]) == ([FAR_TOO], [ROUTED6])
    assert (second["duplicates"], second["answered_by"]) == (0, [])
    assert first["wake_ms"] is None


@kinds
def test_every_ttl_with_which_replies_arrive_is_told(joined: Pair, raw: bool) -> None:
    nft(
        joined.far,
        "output",
        "icmp type echo-reply numgen inc mod 2 == 0 ip ttl set 55\n"
        "icmpv6 type echo-reply ip6 hoplimit set 57",
    )
    first, second = joined.echo([FAR, FAR6], raw=raw)
    assert (first["reply_ttls"], second["reply_ttls"]) == ([55, 64], [57])


@pytest.mark.parametrize("warm_up", [True, False])
def test_a_neighbour_that_is_slow_to_be_found_costs_one_echo_before_the_series(
    joined: Pair, warm_up: bool
) -> None:
    """The kernel asks every 0.3 s who has the address; its first three questions are lost."""
    for name, value in (("retrans_time_ms", 300), ("mcast_solicit", 20)):
        joined.on_near(f"sysctl -qw net.ipv4.neigh.v0.{name}={value}")

    def ask() -> dict[str, Any]:
        sh(f"ip netns exec {joined.far} nft flush ruleset")
        nft(joined.far, "input", "arp operation request numgen inc mod 1000 < 3 drop", family="arp")
        sh(f"ip -n {joined.near} neighbour flush dev v0")
        return joined.echo([FAR], count=10, interval_s=0.1, wait_s=1.5, warm_up=warm_up)[0]

    one = certain(ask) if warm_up else ask()
    assert (one["sent"], one["received"], one["duplicates"], one["late"]) == (10, 10, 0, 0)
    if warm_up:
        assert 850 < one["wake_ms"] < 1500
        assert median(times_of(one)) < 1
        assert one["elapsed_s"] < 2
    else:  # what the echo before the series is for
        assert max(times_of(one)) > 700
        assert median(times_of(one)) > 250


def test_targets_that_never_answer_hold_the_others_up_for_one_wait_and_no_longer(
    joined: Pair,
) -> None:
    silent = [f"10.78.9.{host}" for host in range(1, 31)]
    *found, end = finish(joined.start([FAR, *silent, FAR6], warm_up=True))
    by_address = {one["address"]: one for one in found}
    for address in (FAR, FAR6):
        assert by_address[address]["received"] == 10
        assert median(times_of(by_address[address])) < 100
    assert {by_address[address]["wake_ms"] for address in silent} == {None}
    assert end["wall_s"] < 8  # two waits of 0.5 s; one after another they would be 15 s


@kinds
def test_a_link_that_sleeps_is_woken_before_the_series(lab: MakeLab, raw: bool) -> None:
    made = lab(2)
    near, far = made.nodes
    made.doze(near, far, 600)
    made.allow_datagram_icmp(near)
    pair = Pair(near.namespace, far.namespace)

    def ask() -> dict[str, Any]:
        time.sleep(2 * DOZE_S)  # it sleeps once nothing has passed for so long
        return pair.echo([far.address], raw=raw, wait_s=1, warm_up=True)[0]

    one = certain(ask)
    assert 600 <= one["wake_ms"] < 900
    assert one["received"] == 10
    assert median(times_of(one)) < 100
