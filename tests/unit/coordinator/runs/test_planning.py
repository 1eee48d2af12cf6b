"""What a person asks for becomes a plan, or one line that says why not."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.runs.planning import (
    Selection,
    asked,
    left_out,
    make_plan,
    of_other_family,
    to_upgrade,
)
from worker.model.errors import ConfigError
from worker.model.options import (
    PingOptions,
    RedisOptions,
    TcpOptions,
    ThroughputOptions,
    UdpOptions,
)
from worker.model.plan import Plan, unpack_plan
from worker.model.probe import PROBES
from worker.wire.node_record import Node


def node(name: str, **fields: Any) -> Node:
    usual: dict[str, Any] = {
        "address": "10.0.0.1",
        "labels": {},
        "version": "1",
        "icmp": "raw",
        "iperf3": "3.12",
        "accepts": True,
        "links": {},
        "bytes_per_day": None,
        "clock_offset_ms": None,
        "clock_offset_uncertainty_ms": None,
        "seen_s": 1.0,
    }
    return Node(name=name, **{**usual, **fields})


NODES = [
    node("a", labels={"site": "roof"}),
    node("b", labels={"site": "roof"}),
    node("c", labels={"site": "yard"}, icmp="datagram"),
    node("d", seen_s=99.0),
]


def plan_names(
    selection: Selection, nodes: list[Node] | None = None
) -> tuple[list[str], list[str]]:
    plan = make_plan(NODES if nodes is None else nodes, selection, ("ping",))
    names = [one.name for one in plan.nodes]
    return [names[i] for i in plan.sources], [names[i] for i in plan.targets]


def test_everyone_alive_takes_part_by_default() -> None:
    assert plan_names(Selection()) == (["a", "b", "c"], ["a", "b", "c"])


def test_node_that_is_named_takes_part_though_offline() -> None:
    assert plan_names(Selection(nodes=["a", "d"])) == (["a", "d"], ["a", "d"])


def test_labels_choose() -> None:
    assert plan_names(Selection(labels={"site": "roof"}))[0] == ["a", "b"]


def test_sources_and_targets_may_differ() -> None:
    assert plan_names(Selection(sources=["a"], targets=["b", "c"])) == (["a"], ["b", "c"])


def test_one_side_named_leaves_the_other_to_everyone() -> None:
    assert plan_names(Selection(sources=["a"])) == (["a"], ["a", "b", "c"])


def test_unknown_node_is_named_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"'zz'.*known nodes: a, b, c, d"):
        plan_names(Selection(nodes=["a", "zz"]))


def test_no_node_alive_says_how_to_start_one() -> None:
    with pytest.raises(ConfigError, match="ptzmesh worker"):
        plan_names(Selection(), [node("d", seen_s=99.0)])
    with pytest.raises(ConfigError, match="ptzmesh worker"):
        plan_names(Selection(), [])


def test_one_node_alone_has_no_pair() -> None:
    with pytest.raises(ConfigError, match="no pair"):
        plan_names(Selection(nodes=["a"]))


def test_interval_below_what_a_source_may_do_is_refused_by_its_name() -> None:
    fast = {"ping": PingOptions(interval_s=0.005)}
    assert make_plan(NODES, Selection(nodes=["a", "b"]), ("ping",), fast)
    with pytest.raises(ConfigError, match="node c pings through a datagram socket"):
        make_plan(NODES, Selection(), ("ping",), fast)


def test_offline_nodes_that_were_not_named_are_told() -> None:
    plan = make_plan(NODES, Selection(), ("ping",))
    assert left_out(NODES, plan) == ["d"]


def test_a_node_of_another_wire_version_is_refused_when_named_and_else_left_out() -> None:
    old = node("old", wire=0, version="0.0.9")
    with pytest.raises(ConfigError, match=r"upgrade old \(ptzmesh 0\.0\.9, wire 0\)"):
        make_plan([*NODES, old], Selection(nodes=["a", "old"]), ["ping"])
    plan = make_plan([*NODES, old], Selection(), ["ping"])
    assert [one.name for one in plan.nodes] == ["a", "b", "c"]
    assert "upgrade old" in to_upgrade([*NODES, old], plan, {})
    assert to_upgrade([*NODES, old], plan, {"site": "roof"}) == ""
    assert to_upgrade(NODES, plan, {}) == ""


def test_a_trigger_that_is_older_than_every_node_is_told_to_be_upgraded() -> None:
    newer = [node(name, wire=99, version="9.0") for name in ("x", "y")]
    with pytest.raises(ConfigError, match=r"here; newer are x \(ptzmesh 9\.0, wire 99\), y"):
        make_plan(newer, Selection(), ["ping"])


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({}, "with label site=moon, sources are none, targets are none; .* site=roof, site=yard$"),
        ({"labels": {"site": "yard"}}, "site=yard, sources are c, targets are c;"),
        ({"nodes": ["a", "b"], "labels": {"site": "yard"}}, "sources are none, targets are none;"),
        ({"sources": ["c"], "labels": {"site": "roof"}}, "sources are none, targets are a, b;"),
        ({"sources": ["a"], "targets": ["c"], "labels": {"site": "roof"}}, "targets are none;"),
    ],
)
def test_label_that_too_few_nodes_have_is_told_with_those_that_there_are(
    chosen: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_names(Selection(**{"labels": {"site": "moon"}, **chosen}))


UNUSUAL = {
    "ping": PingOptions(count=3),
    "tcp": TcpOptions(port=80),
    "redis": RedisOptions(count=3),
    "throughput": ThroughputOptions(duration_s=60),
    "udp": UdpOptions(duration_s=60),
}


@pytest.mark.parametrize("probe", PROBES)
def test_only_the_options_of_what_is_run_tell_two_plans_apart(probe: str) -> None:
    def plan(options: dict[str, Any]) -> Plan:
        return make_plan(NODES, Selection(), (probe,), options)

    unused = plan({name: given for name, given in UNUSUAL.items() if name != probe})
    assert unused.digest == plan({}).digest
    assert unused.packed() == plan({}).packed()
    assert plan(UNUSUAL).digest != plan({}).digest
    assert unpack_plan(plan(UNUSUAL).packed()).options == {probe: UNUSUAL[probe]}


FAMILIES = [
    node("four", address="10.0.0.4"),
    node("also-four", address="10.0.0.5"),
    node("six", address="fe80::6%eth0"),
    node("named", address="cam.lan"),
]


def test_family_chooses_those_with_an_address_of_it_and_names_that_may_have_one() -> None:
    assert plan_names(Selection(family=4), FAMILIES)[0] == ["also-four", "four", "named"]
    plan = make_plan(FAMILIES, Selection(family=4), ("ping",))
    assert plan.family == 4  # of the name, each source takes an address of that family
    assert unpack_plan(plan.packed()) == plan
    assert of_other_family(FAMILIES, plan, 4) == ["six"]
    assert of_other_family(FAMILIES, plan, None) == []
    with pytest.raises(ConfigError, match="sources are six, targets are six at IPv6 addresses"):
        plan_names(Selection(family=6), [one for one in FAMILIES if one.name != "named"])


def test_named_node_of_another_family_is_refused_with_what_gives_it_an_address() -> None:
    with pytest.raises(ConfigError, match=r"no IPv4 address; .* worker --name six --address"):
        plan_names(Selection(nodes=["four", "six"], family=4), FAMILIES)


def test_who_is_asked_before_it_is_measured_is_whose_address_may_be_anothers() -> None:
    here = {"boot": "1", "netns": "1"}
    nodes = [
        node("a", address="10.0.0.1", labels={"site": "roof"}, **here),
        node("b", address="10.0.0.2", labels={"site": "roof"}),
        node("c", address="10.0.0.3", gateway="3c:37:12:00:00:01"),
        node("d", address="198.51.100.4", gateway="3c:37:12:00:00:01"),
        node("e", address="10.0.0.5", **here),
        node("f", address="f.example"),
    ]
    plan = make_plan(nodes, Selection(), ["ping"])
    is_asked, names = asked(plan, nodes), [one.name for one in plan.nodes]
    of = {
        source: "".join(t for j, t in enumerate(names) if i != j and is_asked(i, j))
        for i, source in enumerate(names)
    }
    assert of == {"a": "cf", "b": "cef", "c": "abef", "d": "abef", "e": "bcf", "f": "abce"}
