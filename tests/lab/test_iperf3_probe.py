"""
The throughput and UDP probes between namespaces, against links of known rate and loss.

Bounds on counts are six standard deviations. A link of 50 Mbit/s carries 47.8 of data, and never
more; less when the machine stands still meanwhile, which lower bounds leave room for.
"""

from __future__ import annotations

import os
import signal
import time
from math import sqrt

import pytest
from waiting import wait_until

from lab.iperf3_runs import (
    IDLE_RTT_MS,
    LIMIT_S,
    asked_of,
    line,
    measured,
    one,
    run_client,
    server,
    started,
)
from lab.net import Lab
from lab.node import Node
from lab.transfer_runs import counted_bytes, iperf3_on
from worker.model.options import ThroughputOptions

pytestmark = pytest.mark.lab


@pytest.mark.quiet
def test_link_of_50_mbps_reads_44_to_50(pair: tuple[Lab, Node, Node]) -> None:
    made, a, b = pair
    made.shape(a, up_mbps=50)
    found = one(a, b, duration_s=5)
    assert (found["probe"], found["source"], found["target"]) == ("throughput", "near", "far")
    assert found["address"] == b.address
    assert 44 <= found["throughput_mbps"] <= 50
    assert found["bytes_received"] * 8 / found["elapsed_s"] / 1e6 == pytest.approx(
        found["throughput_mbps"]
    )
    assert found["retransmits"] is not None
    assert found["congestion"]
    # Heat, or a container's quota, may have slowed this machine down; the test did not.
    assert not [limit for limit in found["host_limits"] if limit.endswith("CPU")]
    assert found["host_limited"] is bool(found["host_limits"])
    assert found["iperf3_source"].startswith("3.")
    begins, ends = ([interval[at] for interval in found["intervals"]] for at in (0, 1))
    assert begins == pytest.approx([0, *ends[:-1]], abs=0.001)
    assert ends[-1] >= 5


@pytest.mark.quiet
@pytest.mark.long
def test_asymmetric_link_reads_as_such_both_ways(pair: tuple[Lab, Node, Node]) -> None:
    made, a, b = pair
    made.shape(a, up_mbps=20, down_mbps=100)
    assert 17 <= one(a, b, duration_s=5)["throughput_mbps"] <= 20
    assert 88 <= one(b, a, duration_s=5)["throughput_mbps"] <= 100


@pytest.mark.quiet
def test_reverse_is_the_record_of_who_sends(pair: tuple[Lab, Node, Node]) -> None:
    made, a, b = pair
    made.shape(a, up_mbps=20, down_mbps=100)
    found = one(a, b, duration_s=5, reverse=True)
    assert (found["source"], found["target"], found["address"]) == ("far", "near", a.address)
    assert found["connected_by"] == "near"
    assert 88 <= found["throughput_mbps"] <= 100


@pytest.mark.quiet
def test_bidir_reads_both_directions_at_once(pair: tuple[Lab, Node, Node]) -> None:
    made, a, b = pair
    made.shape(a, up_mbps=20, down_mbps=100)
    forth, back = measured(a, b, duration_s=5, bidir=True)
    assert (forth["source"], back["source"]) == ("near", "far")
    assert forth["outcome"] == back["outcome"] == "ok"
    # Each direction carries the other's acknowledgements too.
    assert 14 <= forth["throughput_mbps"] <= 20
    assert 60 <= back["throughput_mbps"] <= 100


@pytest.mark.quiet
def test_bitrate_is_for_all_streams_together(pair: tuple[Lab, Node, Node]) -> None:
    _, a, b = pair
    found = one(a, b, duration_s=5, bitrate_mbps=8, parallel=4)
    assert 7.5 <= found["throughput_mbps"] <= 8.5


@pytest.mark.quiet
def test_low_bitrate_is_kept_to(pair: tuple[Lab, Node, Node]) -> None:
    _, a, b = pair
    assert 0.9 <= one(a, b, duration_s=5, bitrate_mbps=1)["throughput_mbps"] <= 1.1


@pytest.mark.quiet
def test_test_costs_no_more_than_its_worst_case(pair: tuple[Lab, Node, Node]) -> None:
    made, a, b = pair
    made.loss(a, b, 2)
    before = counted_bytes(a)
    one(a, b, duration_s=2, omit_s=1, bitrate_mbps=10)
    spent = counted_bytes(a) - before
    worst = ThroughputOptions(duration_s=2, omit_s=1, bitrate_mbps=10).worst_case_bytes
    assert worst is not None
    assert 10e6 / 8 < spent < worst
    before = counted_bytes(a)
    one(a, b, duration_s=5, bytes_limit=2_000_000)
    spent = counted_bytes(a) - before
    worst = ThroughputOptions(bytes_limit=2_000_000).worst_case_bytes
    assert worst is not None
    # The client closes once its kernel has the last byte; some of it may never leave.
    assert 1_000_000 < spent < worst


@pytest.mark.quiet
def test_loss_of_5_percent_is_read_within_its_binomial_bounds(pair: tuple[Lab, Node, Node]) -> None:
    made, a, b = pair
    with server(b) as (_, port):
        asked = asked_of(a, b, port, udp=True, duration_s=4, bitrate_mbps=8)
        with started(a, "measure", **asked) as client:
            # The loss begins once data flows: iperf3 sends its first packet, a greeting, only once.
            wait_until(lambda: counted_bytes(b) > 200_000, "data flows")
            first = counted_bytes(b)
            made.loss(a, b, 5, "udp")
            last = counted_bytes(b)
            found = line(client)
    assert (found["probe"], found["outcome"]) == ("udp", "ok")
    sent = found["sent"]
    # What stands still at its end sends less.
    assert 0.75 < sent / (4 * 8e6 / 8 / 1448) < 1.02
    lost = round(found["packet_loss_pct"] / 100 * sent)
    # The rule took hold at some moment between the two counts.
    least, most = sent - last / 1514, sent - first / 1514
    assert 0.2 * sent < least
    slack = 6 * sqrt(sent * 0.05 * 0.95)
    assert 0.05 * least - slack < lost < 0.05 * most + slack
    assert found["received"] + lost + found["undecided"] == pytest.approx(sent, abs=2)
    assert found["throughput_mbps"] < 8
    assert found["jitter_rfc3550_ms"] > 0
    # The kernel hands a packet on where it was sent: two of a process that changes its core may
    # change places.
    assert found["out_of_order"] <= 5


@pytest.mark.quiet
def test_udp_without_loss_loses_nothing(pair: tuple[Lab, Node, Node]) -> None:
    _, a, b = pair
    for reverse in (False, True):
        found = one(a, b, udp=True, duration_s=1, bitrate_mbps=4, reverse=reverse)
        # Nothing but what a receiver that stood still had no room for.
        lost = round(found["packet_loss_pct"] / 100 * found["sent"])
        assert lost <= dropped_datagrams(a if reverse else b)
        assert 3 <= found["throughput_mbps"] <= 4.12


def dropped_datagrams(node: Node) -> int:
    """Those for which a socket on the node had no room."""
    lines = node.run(["cat", "/proc/net/snmp"]).stdout.splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp: "))
    return int(dict(zip(names, values, strict=True))["RcvbufErrors"])


@pytest.mark.quiet
def test_rtt_rises_under_load_on_a_buffered_link(pair: tuple[Lab, Node, Node]) -> None:
    made, a, b = pair
    idle = one(a, b, duration_s=2, bitrate_mbps=2)
    assert idle["rtt_loaded_median_ms"] < 2
    # Not the sender's own uplink: its kernel keeps that queue short (tcp_limit_output_bytes).
    made.shape(b, down_mbps=20, buffer_ms=100)
    loaded = one(a, b, duration_s=2, congestion="cubic")
    assert loaded["rtt_loaded_received"] > 5
    assert 20 < loaded["rtt_loaded_median_ms"] < 130
    assert loaded["rtt_idle_median_ms"] == IDLE_RTT_MS


def test_echoes_after_the_last_byte_are_no_rtt_under_load(pair: tuple[Lab, Node, Node]) -> None:
    _, a, b = pair
    # Through in a moment, of the 10 s that it may take.
    found = one(a, b, duration_s=10, bytes_limit=2_000_000)
    assert (found["rtt_loaded_sent"], found["rtt_loaded_median_ms"]) == (None, None)
    assert found["test_s"] < 2 + found["deadline_s"] / 4
    # How long it takes is known: its echoes are sent within that time.
    found = one(a, b, duration_s=10, bytes_limit=1_000_000, bitrate_mbps=8)
    assert 0 < found["rtt_loaded_sent"] < 30


@pytest.mark.quiet
def test_far_target_is_measured_within_its_deadline(pair: tuple[Lab, Node, Node]) -> None:
    made, a, b = pair
    made.shape(a, up_mbps=20)
    made.round_trip(a, b, 150)
    found = one(a, b, duration_s=2, omit_s=1, rtt_ms=150.0)
    assert found["test_s"] < found["deadline_s"]
    assert found["rtt_loaded_median_ms"] >= 150
    assert found["throughput_mbps"] > 1


def test_refused_is_found_at_once(pair: tuple[Lab, Node, Node]) -> None:
    _, a, b = pair
    (found,) = run_client(a, asked_of(a, b, 5201))
    assert found["outcome"] == "refused"
    assert found["throughput_mbps"] is None
    assert found["test_s"] < 3.5


def test_black_hole_is_a_timeout_within_the_connect_time(pair: tuple[Lab, Node, Node]) -> None:
    made, a, b = pair
    made.cut(a, b)
    (found,) = run_client(a, asked_of(a, b, 5201, duration_s=30))
    assert found["outcome"] == "timeout"
    assert 3.5 <= found["test_s"] < 20


def test_second_client_hears_that_the_server_is_busy(pair: tuple[Lab, Node, Node]) -> None:
    _, a, b = pair
    with server(b) as (_, port), started(a, "measure", **asked_of(a, b, port, duration_s=60)):
        wait_until(lambda: counted_bytes(b) > 1_000_000, "data flows")
        (found,) = run_client(a, asked_of(a, b, port, duration_s=1))
        assert found["outcome"] == "target_busy"


def test_server_killed_in_the_middle_leaves_the_intervals(pair: tuple[Lab, Node, Node]) -> None:
    _, a, b = pair
    with (
        server(b) as (_, port),
        started(a, "measure", **asked_of(a, b, port, duration_s=30)) as client,
    ):
        wait_until(lambda: counted_bytes(b) > 1_000_000, "data flows")
        time.sleep(3)
        for pid in iperf3_on(b):
            os.kill(pid, signal.SIGKILL)
        found = line(client)
    assert found["outcome"] == "bad_reply"
    assert found["throughput_mbps"] is None
    assert 1 <= len(found["intervals"]) < 30


def test_link_cut_in_the_middle_is_a_timeout_with_intervals(pair: tuple[Lab, Node, Node]) -> None:
    made, a, b = pair
    with server(b) as (_, port), started(a, "measure", **asked_of(a, b, port, duration_s=5)) as end:
        wait_until(lambda: counted_bytes(b) > 1_000_000, "data flows")
        made.cut(a, b)
        found = line(end)
    assert found["outcome"] == "timeout"
    assert found["intervals"]
    assert found["deadline_s"] <= found["test_s"] < found["deadline_s"] + 15
    assert not iperf3_on(a)


@pytest.mark.parametrize("victim", ["client", "server"])
def test_end_that_is_killed_leaves_no_iperf3(pair: tuple[Lab, Node, Node], victim: str) -> None:
    """SIGKILL to our own process, of which iperf3 is a child in another process group."""
    _, a, b = pair
    with (
        server(b, deadline_s=20) as (serving, port),
        started(a, "measure", **asked_of(a, b, port, duration_s=60)) as client,
    ):
        wait_until(lambda: iperf3_on(a) and iperf3_on(b), "iperf3 runs at both ends")
        killed, node = (client, a) if victim == "client" else (serving, b)
        killed.kill()
        killed.wait()
        wait_until(lambda: not iperf3_on(node), "its iperf3 has ended, too")
        if victim == "client":
            # The server's deadline ends it even if it does not notice.
            wait_until(lambda: not iperf3_on(b), "the server has ended")


def test_server_that_nobody_asks_ends_when_idle(pair: tuple[Lab, Node, Node]) -> None:
    _, _, b = pair
    with server(b, idle_s=3) as (serving, port):
        assert iperf3_on(b)
        assert line(serving) == ["no_reply", "no client came within 3 s", port]
        assert not iperf3_on(b)


def test_server_is_killed_at_its_deadline(pair: tuple[Lab, Node, Node]) -> None:
    _, _, b = pair
    with server(b, deadline_s=4) as (serving, _port):
        assert line(serving)[0] == "timeout"
        assert not iperf3_on(b)


def test_server_takes_the_next_port_when_one_is_in_use(pair: tuple[Lab, Node, Node]) -> None:
    _, a, b = pair
    with server(b) as (_, first), server(b) as (_, second):
        assert (first, second) == (5201, 5202)
        (found,) = run_client(a, asked_of(a, b, second, duration_s=1))
        assert found["outcome"] == "ok"


def test_server_listens_on_the_nodes_address_only(pair: tuple[Lab, Node, Node]) -> None:
    _, _, b = pair
    with server(b) as (_, port):
        listening = b.run(["ss", "-Htln"]).stdout.split()
        assert f"{b.address}:{port}" in listening
        assert not [text for text in listening if text.endswith(f"*:{port}")]


def test_server_for_an_address_of_another_machine_says_so(pair: tuple[Lab, Node, Node]) -> None:
    _, _, b = pair
    with started(b, "serve", address="192.0.2.1", idle_s=1, deadline_s=LIMIT_S) as end:
        outcome, error, port = line(end)
    assert (outcome, port) == ("unreachable", None)
    assert "192.0.2.1" in error


def test_ipv6_is_measured_too(pair: tuple[Lab, Node, Node]) -> None:
    _, a, b = pair
    with started(b, "serve", address=b.address6, idle_s=60, deadline_s=LIMIT_S) as serving:
        asked = asked_of(a, b, line(serving), duration_s=1) | {"far": b.address6}
        (found,) = run_client(a, asked)
    assert found["outcome"] == "ok"
    assert found["rtt_loaded_median_ms"] is not None
