"""What a plan costs: echoes, handshakes, tests, and the questions before them. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from worker.identity.identity import Allowance, Target
from worker.model.cost import MOST_QUESTIONS, questions_a_node
from worker.model.options import PingOptions, TcpOptions, ThroughputOptions
from worker.model.plan import MAX_NODES, Plan, PlannedNode
from worker.model.probe import PROBES, with_options
from worker.probes.traffic import _pair_bytes, again_bytes, bytes_per_node

#: Bytes of asking who answers, and of asking which handshake came, over IPv4.
WHO, SYN = 2 * (20 + 8 + 96), 9 * 60 + 32 + 18


def mesh(count: int, *, claimed_by: tuple[str, ...] = (), **fields: Any) -> Plan:
    nodes = tuple(
        PlannedNode(
            name=f"n{i}", address=f"10.0.{i // 250}.{i % 250}", claimed_by=() if i else claimed_by
        )
        for i in range(count)
    )
    everyone = tuple(range(count))
    return Plan(**{"nodes": nodes, "sources": everyone, "targets": everyone, **fields})


@pytest.mark.parametrize(("warm_up", "echoes"), [(True, 11), (False, 10)])
def test_cost_is_what_echoes_and_replies_weigh_on_both_ends(warm_up: bool, echoes: int) -> None:
    plan = mesh(2, options={"ping": PingOptions(count=10, size_bytes=56, warm_up=warm_up)})
    assert bytes_per_node(plan) == {"n0": 2 * echoes * 2 * 84, "n1": 2 * echoes * 2 * 84}


@pytest.mark.parametrize("probe", ["throughput", "udp"])
def test_cost_of_a_test_of_both_directions_is_the_same_for_one_pair_and_for_two(probe: str) -> None:
    options = PROBES[probe].options(bidir=True, bitrate_mbps=4.0)
    plan = mesh(2, options={probe: options})
    half = replace(plan, sources=(0,), targets=(1,))
    found = [_pair_bytes(half, probe, 0, 1, 20), 2 * (_pair_bytes(plan, probe, 0, 1, 20) or 0)]
    assert found == 2 * [options.worst_case_bytes]


@pytest.mark.parametrize(("warm_up", "handshakes"), [(True, 12), (False, 11)])
def test_cost_of_handshakes_has_those_that_warm_up_and_that_look_for_a_proxy(
    warm_up: bool, handshakes: int
) -> None:
    plan = mesh(2, options={"tcp": TcpOptions(count=10, warm_up=warm_up)})
    cost = 2 * (handshakes * 4 * 60 + 2 * 84 + SYN)
    assert bytes_per_node(plan) == {"n0": cost, "n1": cost}


def everybody(_performer: int, _other: int) -> bool:
    return True


def cost_of(plan: Plan, node: str = "n0") -> int:
    """Give what asking who answers adds to the cost of a node."""
    asked, unasked = bytes_per_node(plan, everybody)[node], bytes_per_node(plan)[node]
    assert asked is not None
    assert unasked is not None
    return asked - unasked


def test_each_is_asked_once_a_run_whatever_is_measured_then() -> None:
    bounded = {"throughput": ThroughputOptions(bytes_limit=1000)}
    plan = mesh(4, options=with_options(["ping", "tcp", "throughput"], bounded))
    assert cost_of(plan) == cost_of(mesh(4)) == 2 * 3 * WHO
    assert again_bytes(plan, everybody) == 3 * 2 * WHO // 2
    assert again_bytes(plan, lambda *_: False) == 0


def test_those_who_claim_one_address_are_all_asked_in_each_phase() -> None:
    plan = mesh(2, claimed_by=("x", "y"), options=with_options(["ping", "tcp"]))
    assert cost_of(plan) == 2 * 3 * WHO + WHO


def test_who_performs_asks_also_where_data_flows_the_other_way() -> None:
    options = {"throughput": ThroughputOptions(reverse=True, bytes_limit=1000)}
    plan = mesh(2, sources=(0,), targets=(1,), options=options)
    assert plan.performers("throughput") == [1]
    assert cost_of(plan) == cost_of(plan, "n1") == WHO
    assert again_bytes(plan, everybody) == 2 * WHO // 2


def test_which_handshake_came_is_asked_once_a_run() -> None:
    def syn(*probes: str) -> int:
        bounded = {"throughput": ThroughputOptions(bytes_limit=1000)}
        plan = mesh(2, options=with_options(probes, bounded))
        cost = bytes_per_node(plan)["n0"]
        assert cost is not None
        return cost

    look = 4 * 60 + 2 * 84
    assert syn("tcp", "throughput") == syn("tcp") + syn("throughput") - 2 * SYN
    worst = ThroughputOptions(bytes_limit=1000).worst_case_bytes
    assert worst is not None
    assert syn("throughput") == 2 * (worst + look + SYN)


def test_largest_mesh_asks_no_more_than_one_of_a_hundred() -> None:
    assert questions_a_node(mesh(100)) >= 99
    brief = {"ping": PingOptions(count=1)}
    assert questions_a_node(mesh(MAX_NODES, options=brief)) * MAX_NODES <= MOST_QUESTIONS
    total = sum(cost_of_all(mesh(500, options=brief)))
    assert total == 2 * WHO * MOST_QUESTIONS


def cost_of_all(plan: Plan) -> list[int]:
    asked, unasked = bytes_per_node(plan, everybody), bytes_per_node(plan)
    return [(asked[name] or 0) - (before or 0) for name, before in unasked.items()]


def test_of_more_than_may_be_asked_some_are_by_lot_and_those_in_dispute_first() -> None:
    targets = [Target(name=f"n{i}", address="10.0.0.1") for i in range(300)]
    targets[77] = Target(name="twin", address="10.0.0.1", claimed_by=("x",))
    allowed = Allowance(20)
    first = allowed.chosen(targets[:200])
    assert first[0].name == "twin"
    assert (len(first), len(allowed.chosen(targets[200:]))) == (20, 0)
    again = Allowance(20).chosen(targets[:200])
    assert {one.name for one in again} != {one.name for one in first}
