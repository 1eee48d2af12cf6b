"""Whose an address may be, and what is said of it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.nodes import Node, also_claimed_by, claims
from worker.identity import Target, is_of_shared_network, judge, share_a_network
from worker.measurement import Outcome
from worker.registry import FIELDS, Record, record_of
from worker.verified import DAY_S, keep_verified, read_verified, verified_path


def node(name: str, address: str, boot: str = "", *, alive: bool = True) -> Node:
    return Node(
        name=name,
        address=address,
        boot=boot,
        netns="1" if boot else "",
        alive=alive,
        labels={},
        links={},
        version="1",
        icmp="raw",
        iperf3="",
        accepts=True,
        bytes_per_day=None,
        clock_offset_ms=None,
        seen_s=1.0,
    )


B = Target(name="b", address="192.168.1.100")
DISPUTED = replace(B, claimed_by=("a", "c"))


def test_name_that_comes_back_decides() -> None:
    assert judge(B, {"b"}).outcome is Outcome.OK
    assert not judge(B, {"b"}).unverified
    wrong = judge(DISPUTED, {"a"})
    assert wrong.outcome is Outcome.WRONG_HOST
    assert wrong.error.startswith("a answers at 192.168.1.100, not b; ")


def test_of_several_that_answer_the_one_whose_own_machine_has_the_address_is_measured() -> None:
    forwarded = judge(DISPUTED, {"a", "b"})
    assert forwarded.outcome is Outcome.UNVERIFIED
    assert forwarded.error.startswith("a, b answer at 192.168.1.100: its ports are forwarded, and ")
    own = replace(DISPUTED, is_there=True)
    assert judge(own, {"a", "b"}).outcome is Outcome.OK
    assert judge(replace(own, also_there=("c",)), {"a", "b"}).outcome is Outcome.OK
    assert judge(replace(own, also_there=("a",)), {"a", "b"}).outcome is Outcome.UNVERIFIED


def test_silence_is_a_mark_and_where_two_claim_the_address_no_number() -> None:
    assert judge(B, set()).outcome is Outcome.OK
    assert judge(B, set()).unverified
    silent = judge(DISPUTED, set())
    assert silent.outcome is Outcome.UNVERIFIED
    assert silent.error.startswith("a, b, c say that they have 192.168.1.100, and b did not say")


@pytest.mark.parametrize(
    ("address", "shared"),
    [
        *((one, True) for one in ("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1")),
        *((one, True) for one in ("100.64.0.1", "100.127.9.9", "169.254.1.1", "fd00::1")),
        ("fe80::1%eth0", True),
        *((one, False) for one in ("172.32.0.1", "100.128.0.1", "8.8.8.8", "2001:db8::1")),
        ("127.0.0.1", False),
    ],
)
def test_addresses_that_many_networks_have(address: str, shared: bool) -> None:
    assert is_of_shared_network(address) is shared


def test_nodes_are_on_one_network_by_a_label_or_a_router_and_not_by_having_none() -> None:
    plain = Record(address=b"10.0.0.1")
    roof, router = replace(plain, site="roof"), replace(plain, gateway="3c:37:12:00:00:01")
    assert share_a_network(roof, roof)
    assert share_a_network(router, router)
    assert not share_a_network(plain, plain)
    assert not share_a_network(roof, replace(roof, site="field"))
    assert not share_a_network(None, roof)


def test_record_is_read_whatever_it_holds() -> None:
    values = dict.fromkeys(FIELDS, b"") | {"address": b"10.0.0.1", "labels": b'{"site": "roof"}'}
    fresh = record_of([*values.values(), b"3.5"])
    assert (fresh.site, fresh.alive) == ("roof", True)
    assert not record_of([*values.values(), b"31"]).alive
    assert not record_of([*values.values(), None]).alive
    assert not record_of([*(values | {"stopped": b"1"}).values(), b"1"]).alive
    assert record_of([*(values | {"labels": b"\xff"}).values(), b"1"]).site == ""


def test_claims_are_of_live_nodes_of_different_namespaces() -> None:
    nodes = [
        node("a", "192.168.1.100", "b1"),
        node("a2", "192.168.1.100", "b1"),
        node("b", "192.168.1.100", "b2"),
        node("c", "192.168.1.7", "b3"),
        node("dead", "192.168.1.7", "b4", alive=False),
    ]
    assert {k: [n.name for n in v] for k, v in claims(nodes).items()} == {
        "192.168.1.100": ["a", "a2", "b"]
    }
    assert also_claimed_by(nodes) == {"a": ("b",), "a2": ("b",), "b": ("a", "a2")}
    assert claims(nodes[:2]) == {}
    # Two that do not say where they are may be anywhere.
    assert claims([node(name, "10.0.0.1") for name in "xy"]).keys() == {"10.0.0.1"}


def test_what_was_verified_holds_for_a_day(tmp_path: Path) -> None:
    path, now = verified_path(tmp_path / "a.outbox"), time.time()
    keep_verified(path, ["x", "y"])
    assert read_verified(path).keys() == {"x", "y"}
    path.write_text(json.dumps({"old": now - DAY_S - 1, "future": now + 3600, "good": now - 60}))
    assert read_verified(path).keys() == {"good"}
    keep_verified(path, ["z"])
    assert read_verified(path).keys() == {"good", "z"}
    path.write_text("{damaged")
    assert read_verified(path) == {}
    keep_verified(tmp_path / "missing" / "a.verified", ["z"])  # no failure
