"""
The echo engine on a real kernel, against what nftables, netem and routes really do.

Two namespaces of its own, joined by one veth: `near` sends, `far` answers and routes. Where a link
is to be slow, the lab's.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from waiting import wait_until

from lab.conftest import MakeLab
from lab.relay import DOZE_S

pytestmark = [pytest.mark.lab, pytest.mark.quiet]

ROOT = Path(__file__).parents[2]
FAR, FAR_TOO, FAR6 = "10.78.0.2", "10.78.0.3", "fd78::2"
ROUTED, ROUTED6 = "198.51.100.7", "2001:db8::7"

#: Runs a session's worth of engine; prints each series as a JSON object a line.
ENGINE = """
import json, os, sys, time
from dataclasses import asdict
from worker.probes.icmp.engine import EchoOptions, echo_many
addresses, options, pause_s, stop_after_s = json.loads(sys.argv[1])
begun = time.monotonic()
def should_stop():
    return stop_after_s is not None and time.monotonic() - begun > stop_after_s
for index, series in echo_many(addresses, EchoOptions(**options), should_stop=should_stop):
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


def has_socket(pid: int) -> bool:
    """Tell whether a process has opened its socket: its echoes follow within milliseconds."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            if str(descriptor.readlink()).startswith("socket:"):
                return True
    return False


def times_of(series: dict[str, Any]) -> list[float]:
    """Give the times of the replies; a send that lost the CPU for a moment has none."""
    return [rtt for rtt in series["rtts_ms"] if rtt is not None]


def certain(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Ask until the echo before the series has a time: one whose send lost the CPU has none."""
    tries = (ask() for _ in range(10))
    return next(one for one in tries if one["wake_ms"] is not None)


def sh(command: str, stdin: str | None = None) -> None:
    subprocess.run(shlex.split(command), check=True, text=True, input=stdin)


@pytest.fixture(scope="module")
def joined() -> Iterator[Pair]:
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


@pytest.fixture
def pair(joined: Pair) -> Iterator[Pair]:
    """Give the pair as new: every test may shape it."""
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


@kinds
def test_every_family_and_a_repeated_address_answer_whole(pair: Pair, raw: bool) -> None:
    addresses = [FAR, FAR6, "fe80::2%v0", FAR, "127.0.0.1", "::1"]
    found = pair.echo(addresses, raw=raw)
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


def test_one_echo_in_four_dropped_is_25_percent_lost(pair: Pair) -> None:
    drop = "icmp type echo-request numgen inc mod 4 == 0 drop"
    nft(pair.far, "input", drop)
    (one,) = pair.echo([FAR], count=40, interval_s=0.01)
    assert (one["sent"], one["received"]) == (40, 30)
    assert one["rtts_ms"].count(None) == 10 + one["times_refused"]
    assert one["rtts_ms"][::4] == [None] * 10


@kinds
def test_duplicates_are_counted_apart(pair: Pair, raw: bool) -> None:
    rule = "icmp type echo-reply meta mark 0 meta mark set 1 dup to v0"
    nft(pair.far, "egress device v0", rule, family="netdev")
    (one,) = pair.echo([FAR], raw=raw)
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
    pair: Pair, raw: bool
) -> None:
    nft(
        pair.far,
        "output",
        f"icmp type echo-reply ip saddr {FAR} ip saddr set {FAR_TOO}\n"
        f"icmpv6 type echo-reply ip6 saddr {FAR6} ip6 saddr set {ROUTED6}",
    )
    first, second, third = pair.echo([FAR, FAR_TOO, FAR6], raw=raw, warm_up=True)
    assert (first["received"], second["received"], third["received"]) == (0, 10, 0)
    assert (first["answered_by"], third["answered_by"]) == ([FAR_TOO], [ROUTED6])
    assert (second["duplicates"], second["answered_by"]) == (0, [])
    assert first["wake_ms"] is None


@kinds
def test_every_ttl_with_which_replies_arrive_is_told(pair: Pair, raw: bool) -> None:
    nft(
        pair.far,
        "output",
        "icmp type echo-reply numgen inc mod 2 == 0 ip ttl set 55\n"
        "icmpv6 type echo-reply ip6 hoplimit set 57",
    )
    first, second = pair.echo([FAR, FAR6], raw=raw)
    assert (first["reply_ttls"], second["reply_ttls"]) == ([55, 64], [57])


@pytest.mark.parametrize("warm_up", [True, False])
def test_a_neighbour_that_is_slow_to_be_found_costs_one_echo_before_the_series(
    pair: Pair, warm_up: bool
) -> None:
    """The kernel asks every 0.3 s who has the address; its first three questions are lost."""
    for name, value in (("retrans_time_ms", 300), ("mcast_solicit", 20)):
        pair.on_near(f"sysctl -qw net.ipv4.neigh.v0.{name}={value}")

    def ask() -> dict[str, Any]:
        sh(f"ip netns exec {pair.far} nft flush ruleset")
        nft(pair.far, "input", "arp operation request numgen inc mod 1000 < 3 drop", family="arp")
        sh(f"ip -n {pair.near} neighbour flush dev v0")
        return pair.echo([FAR], count=10, interval_s=0.1, wait_s=1.5, warm_up=warm_up)[0]

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
    pair: Pair,
) -> None:
    silent = [f"10.78.9.{host}" for host in range(1, 31)]
    *found, end = finish(pair.start([FAR, *silent, FAR6], warm_up=True))
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
    pair: Pair, raw: bool, code: str, kind: str
) -> None:
    nft(pair.far, "forward", f"reject with icmp type {code}")
    good, bad, also_good = pair.echo([FAR, ROUTED, FAR6], raw=raw)
    assert (good["received"], good["error"]) == (10, None)
    assert (also_good["received"], also_good["error"]) == (10, None)
    assert (bad["sent"], bad["received"], bad["errors"], bad["refused"]) == (10, 0, 10, 0)
    assert bad["error_kind"] == kind
    assert bad["error"] == f"{kind.replace('_', ' ')}, said {FAR}"


@kinds
def test_an_ipv6_routers_error_is_read_too(pair: Pair, raw: bool) -> None:
    nft(pair.far, "forward", "reject with icmpv6 type admin-prohibited")
    good, bad = pair.echo([FAR6, ROUTED6], raw=raw)
    assert (good["received"], good["error"]) == (10, None)
    assert bad["errors"] == 10
    assert bad["error"] == f"prohibited, said {FAR6}"


@kinds
def test_a_route_that_is_too_long_is_ttl_exceeded(pair: Pair, raw: bool) -> None:
    nft(pair.far, "prerouting", f"ip daddr {ROUTED} ip ttl set 1")
    (one,) = pair.echo([ROUTED], raw=raw, count=3)
    assert (one["received"], one["error_kind"]) == (0, "ttl_exceeded")


@kinds
def test_a_firewall_of_our_own_refuses_and_loses_nothing(pair: Pair, raw: bool) -> None:
    nft(pair.near, "output", f"ip daddr {FAR_TOO} drop")
    good, bad, nowhere = pair.echo([FAR, FAR_TOO, "203.0.113.9"], raw=raw)
    assert (good["received"], good["refused"]) == (10, 0)
    assert (bad["sent"], bad["refused"], bad["error_kind"]) == (0, 10, "prohibited")
    assert (nowhere["sent"], nowhere["error_kind"]) == (0, "network_unreachable")
    assert nowhere["error"] == "network unreachable, said this host: Network is unreachable"


@kinds
def test_echoes_that_our_own_full_queue_drops_are_sent_again_and_not_lost(
    pair: Pair, raw: bool
) -> None:
    sh(f"tc -n {pair.near} qdisc add dev v0 root tbf rate 400kbit burst 300 limit 300")
    (one,) = pair.echo([FAR], raw=raw, count=100, interval_s=0.0005)
    assert (one["sent"], one["received"], one["refused"]) == (100, 100, 0)
    assert one["send_lag_max_ms"] > 1


def test_addresses_without_a_socket_do_not_stop_the_others(pair: Pair) -> None:
    found = pair.echo(["camera-3.lan", FAR, "fe80::2", "fe80::2%nosuch0"], count=3)
    assert [one["received"] for one in found] == [0, 3, 0, 0]
    assert [one["refused"] for one in found] == [3, 0, 3, 3]


def test_a_process_that_was_stopped_measures_right_and_says_it_was_late(lab: MakeLab) -> None:
    made = lab(2)
    near, far = made.nodes
    made.round_trip(near, far, 40)
    pair = Pair(near.namespace, far.namespace)
    process = pair.start([far.address], count=150, interval_s=0.02, wait_s=5)
    wait_until(lambda: has_socket(process.pid), "it measures")
    time.sleep(0.2)  # a few echoes; all take 3 s
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(0.4)
    os.kill(process.pid, signal.SIGCONT)
    one, _ = finish(process)
    assert one["received"] == 150
    assert min(times_of(one)) >= 40
    assert max(times_of(one)) < 200
    assert one["read_lag_max_ms"] > 200
    assert one["send_lag_max_ms"] > 300


def test_a_slow_consumer_neither_delays_nor_loses(pair: Pair) -> None:
    found = pair.echo([FAR, FAR_TOO] * 2, pause_s=1.5, wait_s=0.1)
    assert [one["received"] for one in found] == [10] * 4
    assert max(one["send_lag_max_ms"] for one in found) < 1500


def test_a_thousand_targets_on_one_socket_lose_nothing(pair: Pair) -> None:
    started = pair.start([FAR, FAR_TOO] * 500, interval_s=0.1, wait_s=1.0)
    *found, end = finish(started)
    assert sum(one["received"] for one in found) == 10_000
    assert max(one["receive_drops"] for one in found) == 0
    assert end["wall_s"] < 60  # not one after another


def test_sixteen_processes_at_once_lose_nothing_and_hear_only_themselves(pair: Pair) -> None:
    started = [pair.start([FAR, FAR_TOO] * 8, interval_s=0.1) for _ in range(16)]
    for process in started:
        *found, _ = finish(process)
        assert [one["received"] for one in found] == [10] * 16
        assert sum(one["duplicates"] + one["receive_drops"] for one in found) == 0


@pytest.mark.long
def test_more_than_65536_echoes_wrap_the_sequence_and_confuse_nothing(pair: Pair) -> None:
    found = pair.echo([FAR, FAR_TOO] * 350, count=100, interval_s=0.001, wait_s=20)
    assert sum(one["received"] for one in found) == 70_000
    assert sum(one["duplicates"] for one in found) == 0
    # A reply that was taken for that of an echo 65536 before or after it is 6.5 s off.
    assert max(max(times_of(one)) for one in found) < 6000


def test_stopped_early_it_yields_only_what_is_complete_and_closes(pair: Pair) -> None:
    *whole, end_whole = finish(pair.start([FAR], count=2))
    *found, end = finish(pair.start([FAR], count=2000, interval_s=0.1, stop_after_s=0.3))
    assert len(whole) == 1
    assert found == []
    assert end["wall_s"] < 60
    assert end["open"] == end_whole["open"]


def test_without_any_right_the_error_names_the_command_that_mends_it(pair: Pair) -> None:
    pair.on_near("sysctl -qw 'net.ipv4.ping_group_range=1 0'")
    source = (
        "from worker.probes.icmp.engine import *\n"
        "print(icmp_capability())\n"
        "try: list(echo_many(['127.0.0.1'], EchoOptions()))\n"
        "except IcmpNotPermitted as exc: print(exc)\n"
    )
    argv = ["ip", "netns", "exec", pair.near, *WITHOUT_RAW, sys.executable, "-c", source]
    done = subprocess.run(argv, check=True, text=True, stdout=subprocess.PIPE, cwd=ROOT)
    assert done.stdout.splitlines() == [
        "none",
        'ping needs CAP_NET_RAW, or: sudo sysctl -w net.ipv4.ping_group_range="0 2147483647"',
    ]
