"""A node's own limits win over what is asked."""

from __future__ import annotations

from datetime import datetime, time
from typing import Any

import pytest

from worker.model.errors import ConfigError
from worker.model.measurement import Outcome
from worker.model.names import parse_ports
from worker.model.options import ThroughputOptions, TransferOptions, UdpOptions
from worker.model.policy import Hours, Policy, judge, parse_hours, parse_links

NOON = datetime(2026, 1, 2, 12, 0)  # noqa: DTZ001 - a node's local time


def outcome(
    policy: Policy, options: TransferOptions, spent: int = 0, near: str | None = "a"
) -> Any:
    verdict = judge(policy, options, NOON, spent, near=near)
    if verdict is None:
        return None
    assert verdict[1]
    return verdict[0]


def test_node_without_limits_allows_everything() -> None:
    assert outcome(Policy(), ThroughputOptions(duration_s=3600)) is None


@pytest.mark.parametrize(
    ("limits", "options"),
    [
        ({"max_duration_s": 5}, {"duration_s": 6}),
        ({"max_duration_s": 5}, {"duration_s": 5, "omit_s": 1}),
        ({"max_bitrate_mbps": 10}, {"bitrate_mbps": 10.1}),
        ({"max_bitrate_mbps": 10}, {}),
        ({"sources": frozenset({"b"})}, {}),
        ({"hours": (parse_hours("00:00-06:00"),)}, {}),
        ({"max_bytes_per_day": 10**12}, {}),
    ],
)
def test_what_is_over_a_limit_is_denied(limits: dict[str, Any], options: dict[str, Any]) -> None:
    assert outcome(Policy(**limits), ThroughputOptions(**options)) is Outcome.DENIED


@pytest.mark.parametrize(
    ("limits", "options"),
    [
        ({"max_duration_s": 6}, {"duration_s": 5, "omit_s": 1}),
        ({"max_bitrate_mbps": 10}, {"bitrate_mbps": 10}),
        ({"sources": frozenset({"a", "b"})}, {}),
        ({"hours": (parse_hours("00:00-06:00"), parse_hours("11:00-13:00"))}, {}),
        ({"max_bytes_per_day": 10**9}, {"bitrate_mbps": 8}),
    ],
)
def test_what_is_within_the_limits_is_allowed(
    limits: dict[str, Any], options: dict[str, Any]
) -> None:
    assert outcome(Policy(**limits), ThroughputOptions(**options)) is None


def test_a_node_may_itself_ask_for_a_test_that_it_lets_one_other_ask_for() -> None:
    assert outcome(Policy(sources=frozenset({"b"})), ThroughputOptions(), near=None) is None


def test_budget_counts_what_is_spent_and_is_exact_at_its_edge() -> None:
    options = UdpOptions(bytes_limit=100_000)
    cost = options.worst_case_bytes
    assert cost is not None
    policy = Policy(max_bytes_per_day=cost + 1000)
    assert outcome(policy, options, spent=1000) is None
    assert outcome(policy, options, spent=1001) is Outcome.OVER_BUDGET
    assert outcome(policy, options, spent=10**12) is Outcome.OVER_BUDGET


def test_hours_go_over_midnight_and_end_before_their_end() -> None:
    night = parse_hours("22:30-05:00")
    for clock in (time(22, 30), time(23, 59), time(0, 0), time(4, 59)):
        assert clock in night
    for clock in (time(22, 29), time(5, 0), time(12, 0)):
        assert clock not in night


def test_hours_to_24_end_the_day() -> None:
    evening = parse_hours("18:00-24:00")
    assert time(23, 59) in evening
    assert time(0, 0) not in evening
    assert evening == Hours(begin=time(18), end=time(0))


@pytest.mark.parametrize(
    "text", ["", "1:00-2:00", "25:00-26:00", "10:00", "10:60-11:00", "x", "10:00-24:30"]
)
def test_hours_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="hours"):
        parse_hours(text)


@pytest.mark.parametrize("texts", [["cell"], ["cell="], ["cell=x"], ["a=1", "a=2"], ["a b=1"]])
def test_links_of_another_form_are_refused(texts: list[str]) -> None:
    with pytest.raises(ConfigError):
        parse_links(texts)


@pytest.mark.parametrize("text", ["", "5201", "5201-x", "-5"])
def test_ports_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="ports"):
        parse_ports(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ports": (80, 90)},
        {"ports": (6000, 5999)},
        {"ports": (5201, 70000)},
        {"max_duration_s": 0},
        {"max_bytes_per_day": -1},
        {"links": {"cell": 0}},
        {"links": {"a b": 1}},
        {"sources": frozenset({"no name"})},
        {"accepts_connections": "no"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Policy(**wrong)


def test_port_range_has_both_its_ends() -> None:
    assert list(Policy(ports=(5201, 5203)).port_range) == [5201, 5202, 5203]
