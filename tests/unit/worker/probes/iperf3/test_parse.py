"""The parser against output of real iperf3, one file a trap, and against anything at all."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.model.measurement import Outcome
from worker.probes.iperf3.parse import MAX_MBPS, parse_report
from worker.probes.iperf3.report import Flow, Iperf3Report

DATA = Path(__file__).parents[4] / "data"


def output(case: str) -> bytes:
    return (DATA / f"iperf3-{case}.json").read_bytes()


def parse(case: str, *, reverse: bool = False, bidir: bool = False) -> Iperf3Report:
    return parse_report(output(case), udp="udp" in case, reverse=reverse, bidir=bidir)


def sums(case: str) -> Any:
    return json.loads(output(case))["end"]


def outbound(report: Iperf3Report) -> Flow:
    assert report.outbound is not None
    return report.outbound


def inbound(report: Iperf3Report) -> Flow:
    assert report.inbound is not None
    return report.inbound


def test_throughput_is_the_receivers() -> None:
    report = parse("3.12-tbf50")
    flow = outbound(report)
    assert report.outcome is Outcome.OK
    assert report.inbound is None
    assert flow.throughput_mbps == pytest.approx(47.762, abs=0.001)
    assert flow.sent_mbps == pytest.approx(50.848, abs=0.001)
    assert (flow.bytes_received, flow.bytes_sent) == (17_940_720, 19_068_712)
    assert flow.elapsed_s == 3.004999
    assert (flow.retransmits, flow.congestion) == (0, "bbr")
    assert report.cpu_near_pct == pytest.approx(0.24, abs=0.01)
    assert report.cpu_far_pct == pytest.approx(8.74, abs=0.01)
    assert report.version == "3.12"
    assert [round(i.mbps) for i in flow.intervals] == [57, 50, 46]
    assert flow.intervals_at == "sender"


def test_reverse_is_the_other_direction() -> None:
    report = parse("3.12-tcp-reverse", reverse=True)
    assert report.outcome is Outcome.OK
    assert report.outbound is None
    assert inbound(report).throughput_mbps == pytest.approx(19.24, abs=0.01)
    assert inbound(report).retransmits == 596
    assert inbound(report).intervals_at == "receiver"


@pytest.mark.parametrize("case", ["3.12-bidir", "3.20-bidir"])
def test_bidir_gives_each_direction_its_own_numbers(case: str) -> None:
    report, end = parse(case, bidir=True), sums(case)
    assert report.outcome is Outcome.OK
    for flow, suffix in ((outbound(report), ""), (inbound(report), "_bidir_reverse")):
        assert flow.bytes_received == end[f"sum_received{suffix}"]["bytes"]
        assert flow.retransmits == end[f"sum_sent{suffix}"]["retransmits"]
        assert flow.intervals


def test_bidir_of_an_old_version_is_refused_as_one_direction_hides_the_other() -> None:
    report = parse("3.7-bidir", bidir=True)
    assert report.outcome is Outcome.BAD_REPLY
    assert outbound(report).throughput_mbps is None
    assert inbound(report).throughput_mbps is None


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        ("busy", Outcome.TARGET_BUSY),
        ("refused", Outcome.REFUSED),
        ("blackhole", Outcome.TIMEOUT),
        ("unreachable", Outcome.UNREACHABLE),
        ("no-route", Outcome.UNREACHABLE),
        ("no-congestion", Outcome.TOOL_MISSING),
        ("udp-no-handshake", Outcome.TIMEOUT),
        ("killed", Outcome.BAD_REPLY),
        ("server-terminated", Outcome.BAD_REPLY),
        ("interrupted", Outcome.BAD_REPLY),
    ],
)
def test_error_in_the_json_decides_as_the_exit_status_is_0(case: str, outcome: Outcome) -> None:
    report = parse(f"3.12-{case}")
    assert report.outcome is outcome
    assert report.error == json.loads(output(f"3.12-{case}"))["error"]
    assert outbound(report).throughput_mbps is None
    assert outbound(report).bytes_received is None
    assert report.cpu_far_pct is None


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        ("refused", Outcome.REFUSED),
        ("reset", Outcome.REFUSED),  # by a firewall that lets the handshake pass
        ("network-unreachable", Outcome.UNREACHABLE),
        ("prohibited", Outcome.UNREACHABLE),
        ("prohibited6", Outcome.UNREACHABLE),
        ("protocol-unreachable", Outcome.UNREACHABLE),
        ("blackhole-route", Outcome.UNREACHABLE),
        ("dropped", Outcome.TIMEOUT),
    ],
)
@pytest.mark.parametrize("version", ["3.7", "3.12", "3.19.1"])
def test_what_a_firewall_or_a_route_says_is_no_bad_reply(
    version: str, case: str, outcome: Outcome
) -> None:
    report = parse(f"{version}-way-{case}")
    assert report.outcome is outcome
    assert outbound(report).throughput_mbps is None


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("unable to connect to server: Required key not available", Outcome.UNREACHABLE),
        ("unable to connect to server: Destination address required", Outcome.UNREACHABLE),
        ("unable to connect to server: Network is down", Outcome.UNREACHABLE),
        ("unable to connect to server: Host is down", Outcome.UNREACHABLE),
        ("unable to connect to server: Operation now in progress", Outcome.TIMEOUT),
        ("unable to send cookie to server: Broken pipe", Outcome.REFUSED),
        # A folder for temporary files that cannot be written is nothing of the way.
        ("unable to create a new stream: Permission denied", Outcome.BAD_REPLY),
        ("unable to create a new stream: Invalid argument", Outcome.BAD_REPLY),
    ],
)
def test_words_that_are_rare_have_their_meaning(text: str, outcome: Outcome) -> None:
    said = json.dumps({"start": {"connected": []}, "intervals": [], "end": {}, "error": text})
    assert parse_report(said.encode()).outcome is outcome


def test_test_killed_in_the_middle_keeps_each_interval_once() -> None:
    printed = json.loads(output("3.12-killed"))["intervals"]
    flow = outbound(parse("3.12-killed"))
    assert len(printed) == 2
    assert printed[0]["sum"] == printed[1]["sum"]
    assert [(i.start_s, round(i.mbps)) for i in flow.intervals] == [(0.0, 14875)]


def test_literal_zeros_of_an_interrupted_test_are_no_measurement() -> None:
    assert sums("3.12-interrupted")["sum_received"]["bytes"] == 0
    assert outbound(parse("3.12-interrupted")).throughput_mbps is None
    assert inbound(parse("3.12-interrupted-reverse", reverse=True)).throughput_mbps is None


def test_unknown_option_is_named() -> None:
    said = (DATA / "iperf3-3.12-unknown-option.txt").read_bytes()
    report = parse_report(b"", said)
    assert report.outcome is Outcome.TOOL_MISSING
    assert report.error == "iperf3: unrecognized option '--no-such-option'"


@pytest.mark.parametrize("size", [1, 100, 1500, 3000])
def test_json_cut_short_is_a_bad_reply(size: int) -> None:
    report = parse_report(output("3.12-tbf50")[:size])
    assert report.outcome is Outcome.BAD_REPLY
    assert str(size) in report.error


def test_text_around_the_json_is_ignored() -> None:
    whole = output("3.12-tbf50")
    noisy = b"warning: a\n" + whole + b'\niperf3: error - x {"end": {}}\n' + whole
    assert parse_report(noisy) == parse_report(whole)


def test_omitted_time_is_not_in_the_figures() -> None:
    flow = outbound(parse("3.12-tcp-omit-parallel"))
    assert flow.throughput_mbps == pytest.approx(95.6, abs=0.1)
    assert [i.omitted for i in flow.intervals] == [True, False, False]


@pytest.mark.parametrize(
    ("case", "reverse"), [("3.12-udp-loss", False), ("3.12-udp-reverse-loss", True)]
)
def test_udp_loss_and_jitter_are_the_receivers_not_the_zeros_of_sum_sent(
    case: str, reverse: bool
) -> None:
    report, end = parse(case, reverse=reverse), sums(case)
    flow = inbound(report) if reverse else outbound(report)
    assert end["sum_sent"]["lost_packets"] == 0
    assert flow.packet_loss_pct == pytest.approx(end["sum_received"]["lost_percent"], abs=0.01)
    assert flow.jitter_rfc3550_ms == end["sum_received"]["jitter_ms"] > 0
    assert flow.sent == end["sum_sent"]["packets"]
    assert flow.out_of_order == 0
    assert flow.throughput_mbps == pytest.approx(
        end["sum_received"]["bytes"] * 8 / end["sum_received"]["seconds"] / 1e6
    )


def test_udp_bidir_gives_each_direction_its_own_loss() -> None:
    report = parse("3.12-udp-bidir-loss", bidir=True)
    assert outbound(report).packet_loss_pct == pytest.approx(4.69, abs=0.01)
    assert inbound(report).packet_loss_pct == pytest.approx(4.17, abs=0.01)


def test_loss_that_3_20_hides_when_its_server_is_older_is_counted() -> None:
    end = sums("3.20-udp-loss-server-3.12")
    assert end["sum_received"]["lost_packets"] == 0
    flow = outbound(parse("3.20-udp-loss-server-3.12"))
    assert (flow.sent, flow.received) == (865, 816)
    assert flow.packet_loss_pct == pytest.approx(100 * 49 / 865)


def test_losses_of_the_omitted_time_that_3_12_counts_are_not() -> None:
    end = sums("3.12-udp-omit-parallel")
    assert end["sum_received"]["lost_packets"] == 242
    flow = outbound(parse("3.12-udp-omit-parallel"))
    assert (flow.sent, flow.received) == (3452, 3288)
    assert flow.packet_loss_pct == pytest.approx(100 * 164 / 3452)


def test_udp_of_which_nothing_arrives_is_lost_whole_not_0_percent() -> None:
    assert sums("3.12-udp-all-lost")["sum_received"]["lost_percent"] == 0
    report = parse("3.12-udp-all-lost")
    flow = outbound(report)
    assert report.outcome is Outcome.NO_REPLY
    assert (flow.packet_loss_pct, flow.received, flow.throughput_mbps) == (100.0, 0, 0.0)
    assert flow.jitter_rfc3550_ms is None


@pytest.mark.parametrize("case", ["3.7-udp-loss", "3.7-udp-reverse-loss"])
def test_udp_of_an_old_version_counts_what_arrived(case: str) -> None:
    reverse = "reverse" in case
    report, end = parse(case, reverse=reverse), sums(case)
    flow = inbound(report) if reverse else outbound(report)
    assert "sum_received" not in end
    assert flow.packet_loss_pct == pytest.approx(end["sum"]["lost_percent"])
    assert flow.throughput_mbps is not None
    assert flow.throughput_mbps < end["sum"]["bytes"] * 8 / end["sum"]["seconds"] / 1e6


@pytest.mark.parametrize("case", ["3.7-tcp", "3.20-tcp", "3.12-tcp"])
def test_every_version_has_its_numbers_at_the_same_places(case: str) -> None:
    report = parse(case)
    assert report.outcome is Outcome.OK
    assert outbound(report).throughput_mbps is not None
    assert outbound(report).retransmits is not None


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "-5", "true", '"7"'])
def test_value_that_is_no_count_is_absent(value: str) -> None:
    text = output("3.12-tbf50").decode()
    for name in ("bytes", "seconds", "retransmits"):
        parts = text.split(f'"{name}":\t')
        broken = f'"{name}":\t{value}, "was":\t'.join(parts)
        flow = outbound(parse_report(broken.encode()))
        assert_sane(flow)
        assert (flow.retransmits if name == "retransmits" else flow.throughput_mbps) is None


def test_failure_without_a_word_is_still_a_failure() -> None:
    for error in ('""', "0", "[]", '" "'):
        report = parse_report(b'{"error": %s, "end": {}}' % error.encode())
        assert report.outcome is Outcome.BAD_REPLY
        assert report.error


def test_deeply_nested_json_is_a_bad_reply() -> None:
    assert parse_report(b'{"a":' * 100_000).outcome is Outcome.BAD_REPLY


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)


@given(
    st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_anything_at_all_is_read_without_an_exception(
    printed: bytes, udp: bool, reverse: bool, bidir: bool
) -> None:
    report = parse_report(printed, printed, udp=udp, reverse=reverse and not bidir, bidir=bidir)
    assert report.outcome is not Outcome.OK
    assert report.error
    assert "\n" not in report.error


def mutated(document: Any, path: list[int], value: Any) -> Any:
    """Put `value` somewhere in a document, where `path` leads."""
    if not path or not isinstance(document, (dict, list)) or not document:
        return value
    keys: list[Any] = list(document) if isinstance(document, dict) else [*range(len(document))]
    key = keys[path[0] % len(keys)]
    changed = dict(document) if isinstance(document, dict) else list(document)
    changed[key] = mutated(document[key], path[1:], value)
    return changed


CASES = sorted(path.name for path in DATA.glob("iperf3-*.json"))


@settings(max_examples=60)
@given(
    st.sampled_from(CASES),
    st.lists(st.tuples(st.lists(st.integers(0, 30), max_size=6), JSON), min_size=1, max_size=3),
)
def test_damaged_output_never_yields_an_absurd_number(
    case: str, damages: list[tuple[list[int], Any]]
) -> None:
    document = json.loads((DATA / case).read_bytes())
    for path, value in damages:
        document = mutated(document, path, value)
    report = parse_report(
        json.dumps(document).encode(),
        udp="udp" in case,
        reverse="reverse" in case and "bidir" not in case,
        bidir="bidir" in case,
    )
    flows = [flow for flow in (report.outbound, report.inbound) if flow is not None]
    for flow in flows:
        assert_sane(flow)
    for percent in (report.cpu_near_pct, report.cpu_far_pct):
        assert percent is None or 0 <= percent <= 1e5
    if report.outcome is Outcome.OK:
        assert all(flow.throughput_mbps is not None for flow in flows)
    else:
        assert report.error


def assert_sane(flow: Flow) -> None:
    for name, value in asdict(flow).items():
        if isinstance(value, (int, float)):
            assert math.isfinite(value), name
            assert value >= 0, name
    for rate in (flow.throughput_mbps, flow.sent_mbps, *(i.mbps for i in flow.intervals)):
        assert rate is None or rate <= MAX_MBPS
    assert flow.packet_loss_pct is None or flow.packet_loss_pct <= 100
