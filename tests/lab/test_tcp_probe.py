"""Handshake times of the tcp probe against what the lab's links do."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest

from lab.net import Lab
from lab.node import Node
from lab.relay import DOZE_S

pytestmark = [pytest.mark.lab, pytest.mark.quiet]

PORT = 4321
LISTEN = f"""
import socket
opened = socket.create_server(("", {PORT}))
while True:
    opened.accept()[0].close()
"""

CODE = """
import json, sys, time
from worker.model.options import TcpOptions
from worker.model.plan import TargetNode
from worker.probes.tcp import measure
asked = json.loads(sys.argv[1])
targets = [TargetNode(name=a, address=a) for a in asked.pop("addresses")]
settle_s = asked.pop("settle_s", 0)
settle = lambda signs: time.sleep(settle_s) or signs
found = measure("r", "me", targets, TcpOptions(**asked), lambda: False, settle)
print(json.dumps([m.to_json() for m in found]))
"""


def probe(node: Node, addresses: list[str], **options: Any) -> dict[str, dict[str, Any]]:
    asked = json.dumps({"addresses": addresses, **options})
    done = node.run([sys.executable, "-c", CODE, asked])
    return {row["address"]: row for row in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def made() -> Any:
    with Lab(4) as lab:
        yield lab


def test_delay_is_read_within_1_ms_and_a_refusal_is_an_answer(made: Lab) -> None:
    a, b, c, _ = made.nodes
    made.round_trip(a, b, 20)
    try:
        found = probe(a, [b.address, c.address, c.address6], port=9, count=50, interval_s=0.02)
    finally:
        made.clear()
    near, far = found[c.address], found[b.address]
    assert far["outcome"] == near["outcome"] == "ok"
    assert far["refusals"] == far["received"] > 25
    assert 20.0 <= far["rtt_median_ms"] <= 21.0
    assert near["rtt_median_ms"] < 1.0
    assert found[c.address6]["outcome"] == "ok"


def test_look_for_proxies_that_takes_long_is_in_no_time(made: Lab) -> None:
    a, b, c, _ = made.nodes
    made.round_trip(a, b, 200)
    try:
        # The near one is complete while handshakes with the far one are under way.
        asked = {"port": 9, "count": 5, "interval_s": 0.05, "settle_s": 1.5}
        found = probe(a, [c.address, b.address], **asked)
    finally:
        made.clear()
    assert found[b.address]["received"] == found[c.address]["received"] == 5
    assert found[b.address]["rtt_max_ms"] < 300


def test_handshake_with_a_listener_is_an_answer(made: Lab, tmp_path: Any) -> None:
    a, b, *_ = made.nodes
    b.start([sys.executable, "-m", "http.server", "8080"], log=tmp_path / "http.log")
    b.wait_until_listening(8080)
    found = probe(a, [b.address], port=8080, count=5)[b.address]
    assert found["accepted"] == 5
    assert found["packet_loss_pct"] == 0


def test_a_link_that_sleeps_is_woken_before_the_series(made: Lab) -> None:
    a, b, c, _ = made.nodes
    made.doze(a, b, 400)
    try:
        time.sleep(2 * DOZE_S)
        found = probe(a, [b.address, c.address], port=9, count=5, interval_s=0.05)
    finally:
        made.clear()
    assert found[b.address]["received"] == found[b.address]["sent"] == 5
    assert 400 <= found[b.address]["wake_ms"] < 900
    assert found[b.address]["rtt_median_ms"] < 100
    assert found[c.address]["wake_ms"] < 300


def test_node_behind_a_radio_that_sleeps_is_woken_once_as_source_and_as_target(made: Lab) -> None:
    *_, c, d = made.nodes
    made.doze(d, c, 600)
    try:
        for source, target in ((d, c), (c, d)):
            address = target.address6
            time.sleep(2 * DOZE_S)  # it sleeps once nothing has passed for so long
            found = probe(source, [address], port=9, count=5, interval_s=0.05)[address]
            assert found["received"] == found["sent"] == 5
            assert 600 <= found["wake_ms"] < 1000
            assert found["rtt_median_ms"] < 100
    finally:
        made.clear()


def test_process_that_stands_still_is_neither_a_slow_network_nor_a_loss(made: Lab) -> None:
    """Each time for longer than a handshake is waited for, while one is under way."""
    a, b, c, _ = made.nodes
    b.start(["python3", "-c", LISTEN])
    b.wait_until_listening(PORT)
    stands_still = f"""
from worker.probes.tcp import _Engine
go_on, looks = _Engine._take_answers, []
def stand_still(engine, look_at):
    for one in list(engine.by_descriptor.values()):
        if engine.options.count > 1 and one.target.node.name not in looks:
            looks.append(one.target.node.name)
            time.sleep(1.2)
    return go_on(engine, look_at)
_Engine._take_answers = stand_still
{CODE}"""
    asked = {"addresses": [b.address, c.address], "port": PORT, "count": 5, "interval_s": 0.1}
    done = a.run([sys.executable, "-c", f"import time\n{stands_still}", json.dumps(asked)])
    accepted, refused = json.loads(done.stdout)
    if accepted["refusals"]:
        accepted, refused = refused, accepted
    for row in (accepted, refused):
        assert (row["outcome"], row["received"], row["packet_loss_pct"]) == ("ok", 5, 0)
        assert (row["rtt_max_ms"] or 0) < 1000
    assert accepted["times_refused"] == 0
    assert refused["times_refused"] >= 1


def test_silence_is_a_loss_and_has_no_time(made: Lab) -> None:
    a, b, c, _ = made.nodes
    made.cut(a, b, silent=True)
    try:
        found = probe(a, [b.address, c.address], port=9, count=3, wait_s=0.3)
    finally:
        made.heal(a, b)
    assert found[b.address]["outcome"] == "no_reply"
    assert found[b.address]["packet_loss_pct"] == 100
    assert found[b.address]["latency_ms"] is None
    assert found[c.address]["outcome"] == "ok"


def test_first_packet_that_was_lost_and_repeated_is_a_loss(made: Lab) -> None:
    a, b, *_ = made.nodes
    made.loss(a, b, 30, proto="tcp")
    try:
        found = probe(a, [b.address], port=9, count=200, interval_s=0.01)[b.address]
    finally:
        made.clear()
    # 30 % of 200: six standard deviations of a binomial are 39.
    assert 10.5 <= found["packet_loss_pct"] <= 49.5
    assert found["rtt_max_ms"] < 1000


def test_no_route_is_told_as_such(made: Lab) -> None:
    found = probe(made.nodes[0], ["203.0.113.9"], port=9, count=2)["203.0.113.9"]
    assert found["outcome"] == "unreachable"
    assert "unreachable" in found["error"]
