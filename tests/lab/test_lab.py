"""
The lab against ground truth: ping, iperf3, redis-cli and the kernel say what it really does.

Bounds on counts are six standard deviations, so a right lab fails once in many million runs. Other
tests run beside these: a median is of a second of samples, which a busy machine does not spoil, and
of a rate only what a busy machine cannot give is exact.
"""

import json
import os
import re
import subprocess
import sys
from math import sqrt
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytest
import redis
from waiting import wait_until

from lab import namespaces
from lab.conftest import MakeLab
from lab.net import Lab
from lab.node import Node
from lab.one_way import one_way_ms

pytestmark = pytest.mark.lab

#: Prints how an attempt to connect ended: "connected", or the name of the exception.
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=0.5).close()
    print("connected")
except OSError as exc:
    print(type(exc).__name__)
"""

#: Takes every connection, and closes it.
LISTEN = """
import socket
server = socket.create_server(("", 5201))
while True:
    server.accept()[0].close()
"""


def test_every_address_answers_at_once(lab: MakeLab) -> None:
    made = lab(3)
    a, _, c = made.nodes
    for address in (c.address, c.address6, made.redis_node.address, "127.0.0.1", "::1"):
        assert ping_loss_pct(a, address, count=1) == 0


def test_round_trip_of_20_ms_is_read_by_ping_within_1_ms(lab: MakeLab) -> None:
    made = lab(3)
    a, b, c = made.nodes
    made.round_trip(a, b, 20)
    for source, address in ((a, b.address), (b, a.address6)):
        assert 20 <= median(ping_rtts_ms(source, address)) < 21
    assert median(ping_rtts_ms(a, c.address)) < 1
    made.clear()
    assert median(ping_rtts_ms(a, b.address)) < 1


def test_delay_stays_right_beside_500_packets_a_second(lab: MakeLab) -> None:
    made = lab(2)
    a, b = made.nodes
    made.round_trip(a, b, 20)
    serve_iperf3(b)
    load = a.start(["iperf3", "-c", b.address, "-u", "-b4M", "-l1000", "-t2"])
    assert 20 <= median(ping_rtts_ms(a, b.address)) < 21
    assert load.wait(60) == 0


def test_delay_is_one_way(lab: MakeLab, tmp_path: Path) -> None:
    made = lab(2)
    a, b = made.nodes
    with made.at_once():
        made.delay(a, b, 15)
        made.delay(b, a, 5)
    assert 15 <= median(one_way_ms(a, b, tmp_path / "forth", count=500)) < 16
    assert 5 <= median(one_way_ms(b, a, tmp_path / "back", count=500)) < 6


def test_jitter_spreads_around_the_delay(lab: MakeLab) -> None:
    made = lab(2)
    a, b = made.nodes
    made.delay(a, b, 20, jitter_ms=10)
    rtts_ms = ping_rtts_ms(a, b.address, count=300)
    assert 10 <= min(rtts_ms) < 14
    # A packet never overtakes one before it, so only the upper half is uniform: this is 28,
    # and six standard deviations are 2.
    assert 25.5 < quantiles(rtts_ms, n=10)[-1] < 31


@pytest.mark.parametrize("family", ["address", "address6"])
def test_icmp_loss_is_binomial_and_unseen_by_the_sender(lab: MakeLab, family: str) -> None:
    made = lab(2)
    a, b = made.nodes
    made.loss(a, b, 20, "icmp")
    flood = a.run(["ping", "-f", "-q", "-c1000", "-W1", getattr(b, family)])
    assert "not permitted" not in flood.stdout + flood.stderr
    assert parse_loss_pct(flood.stdout) == pytest.approx(20, abs=six_sigma_pct(20, 1000))


def test_udp_loss_is_one_way_and_spares_the_rest(lab: MakeLab, tmp_path: Path) -> None:
    made = lab(2)
    a, b = made.nodes
    made.loss(a, b, 20, "udp")
    lost = 1000 - len(one_way_ms(a, b, tmp_path / "forth", count=1000))
    assert lost / 10 == pytest.approx(20, abs=six_sigma_pct(20, 1000))
    assert len(one_way_ms(b, a, tmp_path / "back", count=1000)) == 1000
    assert ping_loss_pct(a, b.address, count=20) == 0


def test_shaped_link_reads_its_rate_at_the_receiver(lab: MakeLab) -> None:
    made = lab(2)
    a, b = made.nodes
    made.shape(a, up_mbps=50)
    assert 30 < throughput_mbps(a, b) < 50


def test_shaped_link_may_be_asymmetric(lab: MakeLab) -> None:
    made = lab(2)
    a, b = made.nodes
    made.shape(b, up_mbps=20, down_mbps=100)
    assert 30 < throughput_mbps(a, b) < 100
    assert 12 < throughput_mbps(a, b, "-R") < 20
    made.shape(b)
    assert throughput_mbps(a, b, "-R") > 25


def test_unplugged_node_is_silent_until_plugged(lab: MakeLab) -> None:
    made = lab(2)
    a, b = made.nodes
    assert ping_loss_pct(a, b.address, count=1) == 0
    made.unplug(b)
    assert connect(a, b, 9) == "TimeoutError"
    made.plug(b)
    assert ping_loss_pct(a, b.address, count=3) == 0
    assert ping_loss_pct(a, b.address6, count=3) == 0


def test_silent_cut_hangs_and_refusing_cut_answers(lab: MakeLab) -> None:
    made = lab(3)
    a, b, c = made.nodes
    b.start([sys.executable, "-c", LISTEN])
    b.wait_until_listening(5201)
    for silent, outcome in ((True, "TimeoutError"), (False, "ConnectionRefusedError")):
        made.cut(a, b, silent=silent)
        assert connect(a, b, 5201) == outcome
        assert connect(c, b, 5201) == "connected"
    assert "Host Unreachable" in a.run(["ping", "-c1", b.address], check=False).stdout
    made.heal(a, b)
    assert connect(a, b, 5201) == "connected"


def test_cut_from_all_reaches_nobody(lab: MakeLab) -> None:
    made = lab(3, redis=True)
    a, b, c = made.nodes
    made.cut(a)
    assert connect(a, made.redis_node, 6379) == "TimeoutError"
    assert ping_loss_pct(c, a.address, count=1) == 100
    assert ping_loss_pct(c, b.address, count=1) == 0


@pytest.mark.parametrize("persist", ["nothing", "always"])
def test_killed_redis_keeps_what_it_was_told_to(lab: MakeLab, persist: Any) -> None:
    made = lab(1, redis=True, persist=persist)
    node = made.nodes[0]
    node.run(["redis-cli", "-u", made.redis_url, "set", "k", "v"])
    made.redis.kill()
    assert connect(node, made.redis_node, 6379) == "ConnectionRefusedError"
    made.redis.start()
    with redis.Redis.from_url(made.redis.socket_url) as client:
        assert client.get("k") == (b"v" if persist == "always" else None)
    made.redis.stop()


def test_datagram_icmp_is_forbidden_until_allowed(lab: MakeLab) -> None:
    made = lab(1)
    node = made.nodes[0]
    argv = [sys.executable, "-c", "import socket; socket.socket(2, 2, socket.IPPROTO_ICMP).close()"]
    assert "PermissionError" in node.run(argv, check=False).stderr
    made.allow_datagram_icmp(node)
    node.run(argv)


def test_lab_of_16_is_quick_and_leaves_nothing(tmp_path: Path) -> None:
    begun_s = children_s()
    with Lab(16, redis=True) as made:
        names = [node.namespace for node in (*made.nodes, made.redis_node)]
        made.delay(made.nodes[0], made.nodes[1], 1)
        escaped = "setsid --fork sleep 1000; echo ready; exec sleep 1000"
        log = tmp_path / "log"
        made.nodes[0].start(["sh", "-c", escaped], log=log)
        wait_until(
            lambda: "ready" in log.read_text(), "the program on the node is ready", every_s=0.005
        )
        pids = list(namespaces.pids_inside(names))
        assert len(pids) == 3
    assert children_s() - begun_s < 1
    assert not made.directory.exists()
    assert not any(p.name.startswith(names[0][:-2]) for p in namespaces.NETNS.iterdir())
    # A killed orphan may stay a zombie where nobody is there to reap it; it runs nothing.
    assert not any(runs(pid) for pid in pids)


def test_leftovers_go_once_their_process_is_dead(tmp_path: Path) -> None:
    code = (
        "import time; from lab.net import Lab; lab = Lab(2, redis=True).__enter__();"
        "print(lab.nodes[0].namespace, lab.directory, flush=True); time.sleep(1000)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) as maker:
        assert maker.stdout is not None
        namespace, directory = maker.stdout.readline().split()
        namespaces.sweep_leftovers()
        assert (namespaces.NETNS / namespace).exists()
        maker.kill()
        maker.wait()
    namespaces.sweep_leftovers()
    assert not (namespaces.NETNS / namespace).exists()
    assert not Path(directory).exists()


def children_s() -> float:
    """Give the processor time of the programs that have ended: a busy machine adds none."""
    times = os.times()
    return times.children_user + times.children_system


def ping_rtts_ms(source: Node, address: str, *, count: int = 100) -> list[float]:
    printed = source.run(["ping", f"-c{count}", "-i0.01", "-W5", address]).stdout
    rtts_ms = [float(found) for found in re.findall(r"time=([\d.]+) ms", printed)]
    assert len(rtts_ms) == count
    # The first may wait for ARP as well.
    return rtts_ms[1:]


def ping_loss_pct(source: Node, address: str, *, count: int) -> float:
    argv = ["ping", "-q", f"-c{count}", "-i0.01", "-W5", address]
    return parse_loss_pct(source.run(argv, check=False).stdout)


def parse_loss_pct(printed: str) -> float:
    found = re.search(r"([\d.]+)% packet loss", printed)
    assert found, printed
    return float(found[1])


def six_sigma_pct(pct: float, count: int) -> float:
    return 6 * sqrt(pct * (100 - pct) / count)


def serve_iperf3(node: Node) -> subprocess.Popen[bytes]:
    server = node.start(["iperf3", "-s", "--one-off"])
    node.wait_until_listening(5201)
    return server


def iperf3(source: Node, target: Node, *options: str) -> dict[str, Any]:
    server = serve_iperf3(target)
    printed = source.run(["iperf3", "-J", "-c", target.address, *options]).stdout
    server.wait(60)  # or its port would be taken for the next one's
    end: dict[str, Any] = json.loads(printed)["end"]
    return end


def throughput_mbps(source: Node, target: Node, *options: str) -> float:
    end = iperf3(source, target, "-t1", *options)
    return float(end["sum_received"]["bits_per_second"]) / 1e6


def connect(source: Node, target: Node, port: int) -> str:
    return source.run([sys.executable, "-c", CONNECT, target.address, str(port)]).stdout.strip()


def runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"
