"""What may be asked of throughput and UDP tests, and what they may cost."""

from __future__ import annotations

from typing import Any

import pytest

from worker.model.errors import ConfigError
from worker.model.options import ThroughputOptions, UdpOptions


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"duration_s": 0}, "duration"),
        ({"duration_s": 0.5}, "duration"),
        ({"duration_s": 2.5}, "whole"),
        ({"duration_s": float("nan")}, "duration"),
        ({"duration_s": float("inf")}, "duration"),
        ({"duration_s": True}, "number"),
        ({"duration_s": "5"}, "number"),
        ({"omit_s": -1}, "omit"),
        ({"omit_s": 61}, "omit"),
        ({"parallel": 0}, "parallel"),
        ({"parallel": 65}, "parallel"),
        ({"bidir": 1}, "bidir"),
        ({"bidir": "false"}, "bidir"),
        ({"bidir": True, "reverse": True}, "exclude"),
        ({"bitrate_mbps": 0}, "bitrate"),
        ({"bytes_limit": 10}, "bytes"),
        ({"bytes_limit": 10_000, "omit_s": 1}, "omit"),
        ({"dscp": 64}, "dscp"),
        ({"dscp": -1}, "dscp"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_its_rule(wrong: dict[str, Any], word: str) -> None:
    for kind in (ThroughputOptions, UdpOptions):
        with pytest.raises(ConfigError, match=word):
            kind(**wrong)


@pytest.mark.parametrize(
    "name", ["", "-C", "Cubic", "cubic; reboot", "a" * 16, "../bbr", "bbr\n", 5, b"bbr"]
)
def test_congestion_control_is_a_name_of_a_module(name: Any) -> None:
    with pytest.raises(ConfigError, match="congestion"):
        ThroughputOptions(congestion=name)


@pytest.mark.parametrize("name", [None, "bbr", "cubic", "dctcp-reno", "bbr2"])
def test_congestion_control_of_linux_is_accepted(name: str | None) -> None:
    assert ThroughputOptions(congestion=name).congestion == name


def test_udp_has_a_modest_rate_and_is_never_without_one() -> None:
    assert UdpOptions().bitrate_mbps == 4.0
    with pytest.raises(ConfigError, match="bitrate"):
        UdpOptions(bitrate_mbps=None)


def test_unbounded_test_has_no_worst_case() -> None:
    assert ThroughputOptions().worst_case_bytes is None


def test_worst_case_is_over_the_data_and_both_directions_are_counted() -> None:
    data = 8e6 / 8 * (10 + 2)
    cost = ThroughputOptions(duration_s=10, omit_s=2, bitrate_mbps=8).worst_case_bytes
    assert cost is not None
    assert data * 1.1 < cost < data * 1.25
    assert ThroughputOptions(
        duration_s=10, omit_s=2, bitrate_mbps=8, bidir=True
    ).worst_case_bytes == pytest.approx(2 * cost, abs=2)


def test_bytes_limit_bounds_the_worst_case() -> None:
    limited = ThroughputOptions(bytes_limit=1_000_000).worst_case_bytes
    assert limited is not None
    assert 1_000_000 < limited < 1_600_000
    assert ThroughputOptions(bytes_limit=1_000_000, bitrate_mbps=1000).worst_case_bytes == limited


def test_test_takes_no_less_than_its_data() -> None:
    assert ThroughputOptions(duration_s=5, omit_s=2).seconds > 7
