"""The command, the deadline and the records of a test, without running one."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path

import pytest
from samples import transfer_statistics
from waiting import wait_until

from worker.model.detail import Interval
from worker.model.fields import MAX_DETAIL_BYTES
from worker.model.measurement import Measurement, Outcome
from worker.model.options import ThroughputOptions, UdpOptions, deadline_s
from worker.model.plan import PlannedNode
from worker.probes.iperf3.client import client_argv, measure
from worker.probes.iperf3.record import Ends, findings, records, who_limits
from worker.probes.iperf3.report import Flow, Iperf3Report
from worker.probes.iperf3.throttle import Throttle, read_throttle, throttled_by
from worker.probes.iperf3.tool import (
    NOT_THERE,
    Iperf3,
    Tool,
    clean_environment,
    parse_version,
    why_unable,
)
from worker.probes.spent import Spent, spent

A = PlannedNode(name="a", address="10.0.0.1")
B = PlannedNode(name="b", address="10.0.0.2")
ENDS = Ends(run="r1", near=A, far=B, port=5201, far_version="3.12")
IPERF3 = Iperf3("/usr/bin/iperf3", "3.12", (3, 12))
AT = datetime(2026, 1, 2, tzinfo=timezone.utc)


def argv(options: ThroughputOptions | UdpOptions, rtt_ms: float | None = 10.0) -> list[str]:
    return client_argv(IPERF3, ENDS, options, rtt_ms)


def value(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def recorded(options: ThroughputOptions, report: Iperf3Report) -> list[Measurement]:
    return records(
        ENDS, options, report, IPERF3, report.outcome, report.error, AT, transfer_statistics()
    )


def test_command_is_a_client_with_json_and_a_connect_timeout() -> None:
    command = argv(ThroughputOptions(duration_s=3, omit_s=1, dscp=46, congestion="bbr"))
    assert value(command, "--client") == "10.0.0.2"
    assert value(command, "--port") == "5201"
    assert "--json" in command
    assert 3000 < int(value(command, "--connect-timeout")) < 10_000
    assert (value(command, "--time"), value(command, "--omit")) == ("3", "1")
    assert (value(command, "--dscp"), value(command, "--congestion")) == ("46", "bbr")
    assert not {"--udp", "--reverse", "--bidir", "--bitrate", "--bytes"} & set(command)


def test_rate_is_shared_among_the_streams_and_blocks_suit_it() -> None:
    slow = argv(ThroughputOptions(bitrate_mbps=4, parallel=4))
    assert value(slow, "--bitrate") == "1000000"
    assert int(value(slow, "--length")) * 8 / 1e6 <= 0.021
    assert value(argv(ThroughputOptions(bitrate_mbps=1000)), "--length") == "131072"
    assert "--length" not in argv(UdpOptions())


def test_bytes_take_the_place_of_the_time_as_iperf3_takes_one_end_only() -> None:
    command = argv(ThroughputOptions(bytes_limit=1_000_000))
    assert value(command, "--bytes") == "1000000"
    assert "--time" not in command


def test_deadline_follows_the_round_trip_time() -> None:
    options = ThroughputOptions(duration_s=5)
    assert deadline_s(options, 1.0) < deadline_s(options, 100.0) < deadline_s(options, 600.0)
    assert deadline_s(options, 600.0) - deadline_s(options, 0.0) == pytest.approx(20 * 0.6)
    assert deadline_s(options, None) == deadline_s(options, 600.0)


@pytest.mark.parametrize(
    ("options", "pairs"),
    [
        (ThroughputOptions(), [("a", "b")]),
        (ThroughputOptions(reverse=True), [("b", "a")]),
        (ThroughputOptions(bidir=True), [("a", "b"), ("b", "a")]),
    ],
)
def test_source_is_who_sends(options: ThroughputOptions, pairs: list[tuple[str, str]]) -> None:
    found = findings(ENDS, options, Outcome.DENIED, "no")
    assert [(m.source, m.target) for m in found] == pairs
    assert [m.address for m in found] == [{"a": "10.0.0.1", "b": "10.0.0.2"}[t] for _, t in pairs]
    assert all(m.throughput_mbps is None for m in found)


def test_numbers_of_the_hosts_go_with_who_sends() -> None:
    flow = Flow(throughput_mbps=5.0)
    report = Iperf3Report(
        outcome=Outcome.OK, outbound=flow, inbound=flow, cpu_near_pct=10.0, cpu_far_pct=20.0
    )
    forth, back = recorded(ThroughputOptions(bidir=True), report)
    assert (forth.detail.cpu_source_pct, forth.detail.cpu_target_pct) == (10.0, 20.0)
    assert (back.detail.cpu_source_pct, back.detail.cpu_target_pct) == (20.0, 10.0)


def test_longest_test_fits_in_a_record() -> None:
    second = Interval(start_s=1.0, end_s=2.0, mbps=1.5, retransmits=3, omitted=False)
    report = Iperf3Report(outcome=Outcome.OK, outbound=Flow(intervals=(second,) * 3660))
    (found,) = recorded(ThroughputOptions(duration_s=3600), report)
    packed = found.to_fields()["detail"]
    assert len(packed) < MAX_DETAIL_BYTES


@pytest.mark.parametrize(
    ("near_pct", "far_pct", "version", "parallel", "limited"),
    [
        (50.0, 50.0, "3.12", 1, False),
        (95.0, 50.0, "3.12", 1, True),
        (50.0, 95.0, "3.12", 1, True),
        (95.0, 5.0, "3.12", 4, True),
        (95.0, 5.0, "3.16", 4, False),
        (380.0, 5.0, "3.16", 4, True),
        (None, None, "3.12", 1, None),
    ],
)
def test_host_that_used_all_of_its_cores_may_have_set_the_pace(
    near_pct: float | None, far_pct: float | None, version: str, parallel: int, limited: bool | None
) -> None:
    report = Iperf3Report(outcome=Outcome.OK, cpu_near_pct=near_pct, cpu_far_pct=far_pct)
    options = ThroughputOptions(parallel=parallel)
    here = Iperf3("iperf3", version, parse_version(version))
    assert who_limits(ENDS, options, report, here, None)[0] is limited


def test_bytes_of_a_test_that_broke_in_the_middle_are_those_of_its_intervals_at_least() -> None:
    seconds = [
        Interval(start_s=s, end_s=s + 1, mbps=8.0, retransmits=0, omitted=s == 0) for s in (0, 1)
    ]
    flow = Flow(throughput_mbps=8.0, intervals=tuple(seconds))
    whole = Iperf3Report(outcome=Outcome.OK, outbound=flow)
    broken = Iperf3Report(outcome=Outcome.BAD_REPLY, error="x", outbound=flow)
    refused = Iperf3Report(outcome=Outcome.REFUSED, error="x", outbound=Flow())
    options = ThroughputOptions()
    assert spent(recorded(options, whole)) == Spent(bytes=2_300_000, is_least=False)
    assert spent(recorded(options, broken)) == Spent(bytes=2_300_000, is_least=True)
    assert spent(recorded(options, refused)) == Spent(bytes=0, is_least=False)
    # Of what had connections, and was broken off before its first interval ended, nobody knows.
    in_data = records(
        *(ENDS, options, refused, IPERF3, refused.outcome, "x", AT),
        transfer_statistics(streams_connected=True),
    )
    assert spent(in_data) == Spent(bytes=0, is_least=True)


def test_old_version_says_which_is_needed() -> None:
    old = Iperf3("iperf3", "3.7", (3, 7))
    assert why_unable(old, ThroughputOptions()) is None
    assert "3.11" in str(why_unable(old, ThroughputOptions(bidir=True)))
    assert "3.7" in str(why_unable(Iperf3("iperf3", "3.1.3", (3, 1, 3)), ThroughputOptions()))
    assert "3.7" in str(why_unable(NOT_THERE, ThroughputOptions()))


def test_without_iperf3_each_direction_gets_tool_missing() -> None:
    found = measure(ENDS, ThroughputOptions(bidir=True), iperf3=NOT_THERE)
    assert [m.outcome for m in found] == [Outcome.TOOL_MISSING] * 2


def test_process_gets_none_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTZMESH_REDIS_URL", "redis://:secret@host")
    assert set(clean_environment()) <= {"LC_ALL", "PATH", "TMPDIR", "LD_LIBRARY_PATH"}
    tool = Tool(["env"])
    assert tool.pump(time.monotonic() + 60)
    tool.kill()
    assert b"secret" not in tool.stdout
    assert b"LC_ALL=C" in tool.stdout


def has_ended(stat: Path) -> bool:
    try:
        return stat.read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_process_that_does_not_end_is_killed_with_its_children() -> None:
    tool = Tool(["sh", "-c", "sleep 600 & echo $!; wait"])
    assert tool.pump(time.monotonic() + 60, until=lambda: tool.stdout.endswith(b"\n"))
    child = Path(f"/proc/{int(tool.stdout)}/stat")
    assert not tool.pump(time.monotonic() + 0.05)
    tool.kill()
    wait_until(lambda: has_ended(child), "the child has ended")


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_throttling_is_read_from_what_the_kernel_says(tmp_path: Path) -> None:
    assert read_throttle(tmp_path) == Throttle(None, None, None)
    for core, count in enumerate(("3", "4")):
        name = f"sys/devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count"
        write(tmp_path, name, f"{count}\n")
    write(tmp_path, "sys/fs/cgroup/cpu.stat", "usage_usec 5\nnr_throttled 2\n")
    write(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n")
    assert read_throttle(tmp_path) == Throttle(7, 2, True)


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [
        (Throttle(None, None, None), Throttle(None, None, None), None),
        (Throttle(7, 2, False), Throttle(7, 2, False), None),
        (Throttle(7, 2, False), Throttle(8, 2, False), "heat"),
        (Throttle(7, 2, False), Throttle(7, 3, False), "CPU quota"),
        (Throttle(7, 2, False), Throttle(7, 2, True), "heat or power"),
    ],
)
def test_throttling_during_a_test_is_named(
    before: Throttle, after: Throttle, cause: str | None
) -> None:
    assert throttled_by(before, after) == cause
