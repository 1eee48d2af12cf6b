"""What an interface has carried, held against what was sent over it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from worker.probes.interception.route import Route
from worker.probes.iperf3 import carried
from worker.probes.iperf3.carried import carried_bytes

#: The first two lines are heads; a name may touch its count.
DEVICES = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs
    lo: 5000 9 0 0 0 0 0 0 5000 9 0 0 0 0 0 0
eth0.7:1000 9 0 0 0 0 0 0 200 9 0 0 0 0 0 0
"""


def test_what_a_machine_sends_to_itself_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = carried_bytes("127.0.0.1")
    assert before is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        for _ in range(100):
            opened.sendto(bytes(10_000), ("127.0.0.1", 9))
    assert (carried_bytes("127.0.0.1") or 0) - before >= 1_000_000
    monkeypatch.setattr(carried, "COUNTERS", tmp_path / "dev")
    assert carried_bytes("127.0.0.1") is None
    (tmp_path / "dev").write_text(DEVICES)
    assert carried_bytes("127.0.0.1") == 5000


def test_both_ways_count_of_an_interface_that_leads_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dev").write_text(DEVICES)
    monkeypatch.setattr(carried, "COUNTERS", tmp_path / "dev")
    for interface, counted in (("eth0.7", 1200), ("eth0", None), (None, None)):
        route = Route("10.0.0.254", "10.0.0.1", interface=interface)
        monkeypatch.setattr(carried, "route_to", lambda *_, found=route: found)
        assert carried_bytes("10.9.9.9") == counted
    monkeypatch.setattr(carried, "route_to", lambda *_: None)
    assert carried_bytes("10.9.9.9") is None
