"""Who answers TCP in the place of a target, and who only seems to: each with its word."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.commands import run
from lab.hops import (
    FAR,
    FAR6,
    HOP1,
    HOP1_6,
    HOP1_FAR,
    HOP1_FAR6,
    PEER,
    Hops,
    chain,
    drop,
    inside,
)

pytestmark = pytest.mark.lab

#: An address that nobody has.
NOBODY, NOBODY6 = "100.64.0.9", "2001:db8::9"
#: sshuttle's port.
PROXY = 12300
REDIRECT = f"meta l4proto tcp tcp dport 22 redirect to :{PROXY}"


@pytest.fixture(scope="module")
def hops() -> Iterator[Hops]:
    made = Hops()
    try:
        made.create()
        yield made
    finally:
        made.remove()


def test_true_targets_are_ok_without_a_mark(hops: Hops) -> None:
    addresses = (FAR, FAR6, HOP1, HOP1_6, HOP1_FAR, HOP1_FAR6, PEER)
    found = hops.tcp(*addresses)
    assert {a: (found[a]["outcome"], found[a].get("hint")) for a in addresses} == dict.fromkeys(
        addresses, ("ok", None)
    )


@pytest.mark.parametrize("listens", [True, False], ids=["accepted", "refused"])
def test_redirect_on_this_machine_is_intercepted(hops: Hops, listens: bool) -> None:
    with hops.rules(hops.near, chain("output", REDIRECT)):
        if listens:
            with hops.listening(hops.near, PROXY):
                found = hops.tcp(NOBODY, NOBODY6, FAR)
        else:
            found = hops.tcp(NOBODY, NOBODY6, FAR)
    for address, row in found.items():
        assert (row["outcome"], row["latency_ms"]) == ("intercepted", None), row
        assert address in row["error"]
        assert (f"port {PROXY} of this machine" in row["error"]) is listens
        assert "rtts_ms" not in row
        assert "rtt_min_ms" not in row


def test_redirect_at_the_first_hop_is_intercepted_by_name(hops: Hops) -> None:
    with (
        hops.rules(hops.hop1, chain("prerouting", REDIRECT)),
        hops.listening(hops.hop1, PROXY),
    ):
        found = hops.tcp(NOBODY, FAR, FAR6, HOP1_FAR)
    assert {a: row["outcome"] for a, row in found.items()} == {
        NOBODY: "intercepted",
        FAR: "intercepted",
        FAR6: "intercepted",
        HOP1_FAR: "ok",
    }
    assert HOP1 in found[FAR]["error"]
    assert HOP1_6 in found[FAR6]["error"]


def test_first_hop_that_says_nothing_of_what_it_drops_is_told_by_its_own_echo(hops: Hops) -> None:
    silent = drop("output", "icmp type time-exceeded")
    with hops.rules(hops.hop1, chain("prerouting", REDIRECT), silent):
        assert hops.tcp(FAR)[FAR]["outcome"] == "intercepted"


def test_node_on_the_first_hop_that_is_silent_to_echoes_is_a_hint_only(hops: Hops) -> None:
    with hops.rules(hops.hop1, drop("input", "icmp type echo-request")):
        row = hops.tcp(HOP1_FAR)[HOP1_FAR]
    assert (row["outcome"], row["hint"]) == ("ok", "ttl_1_answered")
    assert row["latency_ms"] is not None


def test_without_the_right_to_ping_the_first_hop_is_a_hint_and_this_machine_proof(
    hops: Hops,
) -> None:
    with hops.rules(hops.hop1, chain("prerouting", REDIRECT)):
        row = hops.tcp(FAR, with_icmp=False)[FAR]
    assert (row["outcome"], row["hint"]) == ("ok", "ttl_1_answered")
    with hops.rules(hops.near, chain("output", REDIRECT)), hops.listening(hops.near, PROXY):
        row = hops.tcp(FAR, with_icmp=False)[FAR]
    assert row["outcome"] == "intercepted"


def test_peer_of_a_tunnel_that_drops_echoes_is_ok(hops: Hops) -> None:
    with hops.rules(hops.peer, drop("input", "icmp type echo-request")):
        row = hops.tcp(PEER)[PEER]
    assert (row["outcome"], row.get("hint")) == ("ok", None)


def test_tunnel_whose_far_end_accepts_whatever_comes_is_a_hint(hops: Hops) -> None:
    everything = f"meta l4proto tcp redirect to :{PROXY}"
    with hops.rules(hops.peer, chain("prerouting", everything)), hops.listening(hops.peer, PROXY):
        row = hops.tcp(PEER)[PEER]
    assert (row["outcome"], row["hint"]) == ("ok", "odd_port_answered")


@pytest.mark.parametrize("where", ["near", "hop1"])
def test_target_behind_a_translated_address_is_ok(hops: Hops, where: str) -> None:
    hook = {"near": "output", "hop1": "prerouting"}[where]
    rule = f"ip daddr {NOBODY} meta l4proto tcp dnat ip to {FAR}"
    with hops.rules(getattr(hops, where), chain(hook, rule)):
        row = hops.tcp(NOBODY)[NOBODY]
    assert (row["outcome"], row.get("hint")) == ("ok", None)


def test_container_behind_the_published_port_of_its_host_is_ok(hops: Hops) -> None:
    # hop1 is the host, near and the one that its port 22 leads to are containers on it.
    rule = f"ip daddr {HOP1_FAR} tcp dport 22 dnat ip to {FAR}"
    with hops.rules(hops.hop1, chain("prerouting", rule)):
        row = hops.tcp(HOP1_FAR)[HOP1_FAR]
    assert (row["outcome"], row.get("hint")) == ("ok", None)


def test_test_from_here_says_what_answers_its_throughput(hops: Hops, tmp_path: Path) -> None:
    everything = f"meta l4proto tcp redirect to :{PROXY}"
    options = ("-d", "5", "-i", "5", "-c", "1", "--throughput", "--no-plot", "--json")
    argv = [*inside(hops.near), sys.executable, "-m", "coordinator.cli", "test", FAR, *options]
    with hops.rules(hops.near, chain("output", everything)), hops.listening(hops.near, PROXY):
        done = run([*argv, "--out", str(tmp_path)], check=False)
    assert '"intercepted"' in done.stdout, done.stderr
    assert f"port {PROXY} of this machine answers" in done.stderr
