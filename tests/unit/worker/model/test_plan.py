"""A plan is frozen, whole, and nothing damaged is taken for one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.model.cost import SLACK, phase_seconds
from worker.model.errors import ConfigError, PtzmeshError, WireError
from worker.model.options import PingOptions, TcpOptions, ThroughputOptions
from worker.model.plan import MAX_NODES, MAX_PLAN_BYTES, Plan, PlannedNode, unpack_plan
from worker.model.probe import PROBES, with_options


def mesh(count: int, *, links: Any = (), accepts: bool = True, **fields: Any) -> Plan:
    nodes = tuple(
        PlannedNode(name=f"n{i}", address=f"10.0.0.{i}", accepts=accepts, links=links)
        for i in range(count)
    )
    everyone = tuple(range(count))
    return Plan(**{"nodes": nodes, "sources": everyone, "targets": everyone, **fields})


def test_plan_comes_back_from_its_packed_form() -> None:
    plan = mesh(4, options={"ping": PingOptions(count=3, wait_s=0.5)})
    assert unpack_plan(plan.packed()) == plan


def test_every_ordered_pair_has_a_bit_of_its_own() -> None:
    plan = mesh(7)
    bits = [plan.bit(s, t) for s, t in plan.node_pairs()]
    assert len(bits) == len(set(bits)) == plan.pair_count == 42


def test_partial_mesh_counts_no_node_as_its_own_target() -> None:
    plan = mesh(4, sources=(0, 1), targets=(1, 2, 3))
    assert plan.pair_count == len(list(plan.node_pairs())) == 5


CELL = (("cell", 1),)
ONE_WAY = {"throughput": ThroughputOptions(duration_s=1)}
BOTH_WAYS = {"throughput": ThroughputOptions(bidir=True, duration_s=1)}


@pytest.mark.parametrize(
    ("plan", "tests_in_a_row"),
    [
        (mesh(2, sources=(0,), targets=(1,), options=ONE_WAY), 1),
        (mesh(4, sources=(0,), targets=(1, 2, 3), options=ONE_WAY), 3),
        (mesh(4, sources=(1, 2, 3), targets=(0,), options=ONE_WAY), 3),
        (mesh(4, options=ONE_WAY), 6),
        (mesh(3, options=ONE_WAY), 6),
        (mesh(4, options=BOTH_WAYS), 3),
        (mesh(4, links=CELL, options=ONE_WAY), 12),
        (mesh(4, links=(("hub", 2),), options=ONE_WAY), 6),
        (mesh(4, links=CELL, options=BOTH_WAYS), 6),
        (mesh(4, accepts=False, options=ONE_WAY), 0),
    ],
)
def test_tests_take_at_most_what_ends_and_shared_links_let_follow_each_other(
    plan: Plan, tests_in_a_row: int
) -> None:
    assert phase_seconds(plan, "throughput") == pytest.approx(SLACK * 3.0 * tests_in_a_row)
    # With a round trip of 600 ms each way, and full buffers to be emptied.
    longest_s = SLACK * 22.5 * tests_in_a_row
    assert phase_seconds(plan, "throughput", at_worst=True) == pytest.approx(longest_s)
    assert unpack_plan(plan.packed()) == plan


@pytest.mark.parametrize("probe", ["ping", "tcp", "throughput", "udp"])
def test_source_without_a_target_performs_nothing(probe: str) -> None:
    plan = mesh(3, targets=(1,), options=with_options([probe]))
    assert plan.performers(probe) == [0, 2]
    assert all(plan.pairs_of(probe, one) for one in plan.performers(probe))


@pytest.mark.parametrize(
    "fields",
    [
        {"sources": (), "targets": ()},
        {"sources": (), "targets": (), "sample": 1},
        {"sources": (0,), "targets": (0,)},
        {"sources": (0,), "targets": (0,), "sample": 1},
        {"targets": ()},
        {"options": {}},
    ],
)
def test_plan_in_which_nothing_is_measured_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="the plan has no"):
        mesh(3, **fields)


def test_targets_are_rotated_so_that_sources_start_apart() -> None:
    plan = mesh(4)
    assert [plan.pairs_of("ping", s)[0][1] for s in plan.sources] == [1, 2, 3, 0]


def test_starts_are_spread_within_half_a_second() -> None:
    plan = mesh(100)
    offsets = [plan.start_offset_s(s) for s in plan.sources]
    assert len(set(offsets)) == 100
    assert max(offsets) < 0.5


@pytest.mark.parametrize(("count", "sample"), [(2, 1), (7, 3), (50, 49), (200, 10)])
def test_node_of_a_sample_is_as_often_a_target_as_a_source(count: int, sample: int) -> None:
    plan = mesh(count, sample=sample, seed="a")
    pairs = list(plan.node_pairs())
    assert len(set(pairs)) == len(pairs) == plan.pair_count == count * sample
    assert all(s != t for s, t in pairs)
    assert {Counter(s for s, _ in pairs)[i] for i in range(count)} == {sample}
    assert {Counter(t for _, t in pairs)[i] for i in range(count)} == {sample}


@pytest.mark.parametrize("probe", ["ping", "throughput"])
def test_sweeps_of_a_sample_measure_its_pairs_and_no_others(probe: str) -> None:
    plan = unpack_plan(mesh(9, sample=3, seed="a", options=with_options([probe])).packed())
    measured = [pair for one in plan.performers(probe) for pair in plan.pairs_of(probe, one)]
    assert sorted(measured) == sorted(plan.node_pairs())


def test_seed_chooses_the_pairs_of_a_sample() -> None:
    one, same, other = (mesh(20, sample=3, seed=seed) for seed in ("a", "a", "b"))
    assert set(one.node_pairs()) == set(same.node_pairs()) != set(other.node_pairs())
    assert len({frozenset(mesh(20, sample=3, seed=str(i)).node_pairs()) for i in range(50)}) == 50


@pytest.mark.parametrize("fields", [{"sample": 0}, {"sample": 4}, {"sample": 1, "targets": (0, 1)}])
def test_sample_that_cannot_be_taken_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="sample"):
        mesh(4, seed="a", **fields)


def test_same_question_has_the_same_digest_and_another_has_not() -> None:
    assert mesh(3).digest == mesh(3).digest
    assert mesh(3).digest != mesh(3, options={"ping": PingOptions(count=11)}).digest


@pytest.mark.parametrize(
    "fields",
    [
        {"sources": (0,), "targets": (0,)},
        {"sources": (0, 9)},
        {"targets": (-1,)},
        {"options": {"pong": PingOptions()}},
        {"options": {"tcp": PingOptions()}},
    ],
)
def test_plan_that_cannot_be_run_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        mesh(3, **fields)


def test_mesh_beyond_the_bound_is_refused() -> None:
    with pytest.raises(ConfigError):
        mesh(MAX_NODES + 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0},
        {"count": 10_001},
        {"interval_s": 0.0001},
        {"wait_s": 0},
        {"size_bytes": 8},
        {"count": True},
        {"count": "10"},
        {"interval_s": float("nan")},
    ],
)
def test_options_out_of_bounds_are_refused_with_the_rule(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        PingOptions(**wrong)


#: Of probes that a newer version has: of all pairs, of one thing a source, of both ends.
NEWER = (
    {"probe": "mtu", "ends": 1, "target": "", "seconds": 3.5, "options": {"sizes": [1, 2]}},
    {"probe": "dns", "ends": 1, "target": "resolver", "seconds": 1, "options": {}},
    {"probe": "quic", "ends": 2, "target": "", "seconds": 6, "options": {"reverse": True}},
    {"probe": "tcp", "ends": 1, "target": "", "seconds": 2.5, "options": {"count": 3, "ttl": 5}},
)


def packed_with(*phases: dict[str, Any]) -> bytes:
    return bytes(msgpack.packb({**msgpack.unpackb(mesh(3).packed()), "phases": phases}))


def test_what_a_newer_plan_asks_for_is_counted_and_comes_back_as_it_was() -> None:
    (ping,) = msgpack.unpackb(mesh(3).packed())["phases"]
    plan = unpack_plan(packed_with(ping, *NEWER))
    assert plan.probes == ("ping", "mtu", "dns", "quic", "tcp")
    assert [plan.lacks(probe) for probe in plan.probes] == [
        "", "probe mtu", "probe dns", "probe quic", "option ttl of tcp",
    ]  # fmt: skip
    assert [plan.count(probe) for probe in plan.probes] == [6, 6, 3, 6, 6]
    assert plan.performers("dns") == [0, 1, 2]
    assert plan.performer("mtu", 0, 1) == 0
    assert plan.performer("quic", 0, 1) == 1
    assert phase_seconds(plan, "mtu") == pytest.approx(3.5 + plan.start_spread_s)
    assert msgpack.unpackb(plan.packed()) == msgpack.unpackb(packed_with(ping, *NEWER))
    assert unpack_plan(plan.packed()).digest == plan.digest


@pytest.mark.parametrize(
    "changes",
    [
        {"probe": "../x"}, {"probe": "x" * 33}, {"probe": None}, {"probe": "ping", "options": []},
        {"ends": 3}, {"ends": True}, {"ends": "1"}, {"ends": 2, "target": "x"}, {"target": "a b"},
        {"seconds": -1}, {"seconds": float("inf")}, {"seconds": float("nan")}, {"seconds": "1"},
        {"options": None}, {"options": {"a\nb": 1}}, {"options": {1: 1}},
        {"options": {"a": "x" * 5000}}, {"probe": "tcp", "options": {"count": 0, "ttl": 5}},
        {"probe": "tcp", "options": {"count": 0}},
    ],
)  # fmt: skip
def test_what_is_damaged_of_a_newer_probe_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        unpack_plan(packed_with({**NEWER[0], **changes}))


def test_too_many_phases_or_one_twice_are_refused() -> None:
    for phases in ([NEWER[0]] * 2, [{**NEWER[0], "probe": f"p{i}"} for i in range(17)], []):
        with pytest.raises(WireError):
            unpack_plan(packed_with(*phases))


@pytest.mark.parametrize("probe", PROBES)
def test_plan_says_nothing_of_what_is_off_by_default(probe: str) -> None:
    (phase,) = msgpack.unpackb(mesh(3, options=with_options([probe])).packed())["phases"]
    assert all(value is not None and value is not False for value in phase["options"].values())


def test_plan_says_what_is_off_where_it_is_on_by_default() -> None:
    plan = mesh(3, options={"tcp": TcpOptions(warm_up=False)})
    assert unpack_plan(plan.packed()) == plan


def test_plan_that_is_too_long_is_not_looked_at() -> None:
    with pytest.raises(WireError, match="over"):
        unpack_plan(b"\x00" * (MAX_PLAN_BYTES + 1))


@given(st.binary(max_size=200))
@example(b"\x81\xa4wire" + b"\x91" * 1010 + b"\x90")
def test_bytes_that_are_no_plan_are_refused(packed: bytes) -> None:
    with pytest.raises(WireError):
        unpack_plan(packed)


GOOD = msgpack.unpackb(mesh(2).packed())
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.sampled_from([*GOOD, "more"]), values)
def test_plan_with_one_field_replaced_is_a_plan_or_refused(name: str, value: object) -> None:
    try:
        plan = unpack_plan(msgpack.packb({**GOOD, name: value}))
    except PtzmeshError as exc:
        assert isinstance(exc, WireError)  # noqa: PT017 - the class is the point
    else:
        assert list(plan.node_pairs())
