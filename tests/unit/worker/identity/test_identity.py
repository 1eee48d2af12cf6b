"""Whose an address may be, and what is said of it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.runs.nodes import also_claimed_by, claims
from worker.host import machine
from worker.identity.context import NodeContext
from worker.identity.identity import (
    FINE,
    NOBODY,
    Allowance,
    Answers,
    Target,
    Verdict,
    _key,
    identify,
    is_of_shared_network,
    judge,
    share_a_network,
)
from worker.identity.verified import DAY_S, keep_verified, read_verified, verified_path
from worker.model.measurement import Outcome
from worker.model.policy import Policy
from worker.probes.iperf3.tool import NOT_THERE
from worker.wire.node_record import Node, Record


def node(name: str, address: str, boot: str = "", *, alive: bool = True) -> Node:
    return Node(
        name=name,
        address=address,
        boot=boot,
        netns="1" if boot else "",
        labels={},
        links={},
        version="1",
        icmp="raw",
        iperf3="",
        accepts=True,
        bytes_per_day=None,
        clock_offset_ms=None,
        seen_s=1.0 if alive else 99.0,
    )


B = Target(name="b", address="192.168.1.100")
DISPUTED = replace(B, claimed_by=("a", "c"), also_there=("a",))


def answers(*names: str, was_asked: bool = True) -> Answers:
    return Answers(frozenset(names), was_asked)


def test_name_that_comes_back_decides() -> None:
    assert judge(B, answers("b")) == FINE
    wrong = judge(DISPUTED, answers("a"))
    assert wrong.outcome is Outcome.WRONG_HOST
    assert wrong.error.startswith("a answers at 192.168.1.100, not b; ")


def test_another_name_is_no_proof_against_a_target_that_was_busy_or_shares_an_address() -> None:
    for found in (answers("a", was_asked=False), answers("c")):
        unsure = judge(DISPUTED, found)
        assert unsure.outcome is Outcome.UNVERIFIED
        assert unsure.error.startswith("a, b, c say that they have 192.168.1.100, and b did not")


def test_of_several_that_answer_the_one_whose_own_machine_has_the_address_is_measured() -> None:
    forwarded = judge(DISPUTED, answers("a", "b"))
    assert forwarded.outcome is Outcome.UNVERIFIED
    assert forwarded.error.startswith("a, b answer at 192.168.1.100: its ports are forwarded, and ")
    own = replace(DISPUTED, is_there=True, also_there=())
    assert judge(own, answers("a", "b")) == FINE
    assert judge(replace(own, also_there=("c",)), answers("a", "b")) == FINE
    both = judge(replace(own, also_there=("a",)), answers("a", "b"))
    assert both.outcome is Outcome.UNVERIFIED


def test_silence_is_a_mark_and_where_two_claim_the_address_no_number() -> None:
    assert judge(B, NOBODY).outcome is Outcome.OK
    assert judge(B, NOBODY).unverified
    silent = judge(DISPUTED, NOBODY)
    assert silent.outcome is Outcome.UNVERIFIED
    assert silent.error.startswith("a, b, c say that they have 192.168.1.100, and b did not say")


def context(folder: Path) -> NodeContext:
    return NodeContext(
        name="a", address="10.0.0.1", redis_url="redis://127.0.0.1:1",
        outbox_path=folder / "a.outbox", policy=Policy(), iperf3=NOT_THERE,
        should_stop=lambda: False,
    )  # fmt: skip


def test_word_of_a_target_holds_as_long_as_it_is_heard_and_nobody_else_claims_its_address(
    tmp_path: Path,
) -> None:
    here, there = context(tmp_path), Record(address="10.0.0.2", since=1.0, seen_s=1.0)
    records = {"b": there, "c": replace(there, since=2.0)}
    b = Target(name="b", address="10.0.0.2")

    def verdict(target: Target, **record: object) -> Verdict:
        found = {**records, "b": replace(there, **record)}  # type: ignore[arg-type]  # by name
        return identify(here, [target], found, Allowance(9), lambda: False)["b"]

    assert verdict(b).unverified
    keep_verified(verified_path(here.outbox_path), [_key(here, b, records)])
    assert verdict(b) == FINE
    assert verdict(b, since=3.0).unverified
    # Its address may be another's by now, also one that is of no private network.
    assert verdict(b, seen_s=99.0).unverified
    public = replace(b, address="192.0.2.9")
    assert verdict(public) == FINE
    assert verdict(public, stopped=True).unverified
    # Somebody else has come since, who says that it is his.
    assert verdict(replace(b, claimed_by=["c"])).outcome is Outcome.UNVERIFIED


def test_own_address_is_no_wrong_host_where_nobody_knows_which_namespace_this_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b, record = Target(name="b", address="127.0.0.1"), Record(address="127.0.0.1", seen_s=1.0)
    elsewhere = replace(record, boot="another", netns="1")

    def outcome(of: Record) -> Outcome:
        return identify(context(tmp_path), [b], {"b": of}, Allowance(9), lambda: False)["b"].outcome

    assert outcome(elsewhere) is Outcome.WRONG_HOST
    assert outcome(record) is Outcome.UNVERIFIED
    monkeypatch.setattr(machine, "BOOT_ID", tmp_path / "hidden")
    assert outcome(elsewhere) is Outcome.UNVERIFIED


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
    plain = Record(address="10.0.0.1")
    roof, router = (
        replace(plain, labels={"site": "roof"}),
        replace(plain, gateway="3c:37:12:00:00:01"),
    )
    assert share_a_network(roof, roof)
    assert share_a_network(router, router)
    assert not share_a_network(plain, plain)
    assert not share_a_network(roof, replace(roof, labels={"site": "field"}))
    assert not share_a_network(None, roof)


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
