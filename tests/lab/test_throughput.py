"""
Throughput through the whole mesh in the lab, on a quiet machine: what is exact.

Bounds on counts are five standard deviations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, permutations
from math import sqrt
from statistics import median, quantiles

import pytest

from lab.mesh import LabMesh, Pair, mesh_of
from lab.net import Lab
from lab.transfer_runs import (
    EASY,
    ENDS_S,
    TCP,
    Span,
    TracedMesh,
    clashes,
    counted_bytes,
    ended_at,
    measured,
    rows_of,
    shaped,
    span_of,
    wait_until_moved,
)
from worker.model.tournament import least_rounds

pytestmark = pytest.mark.lab

UDP = ("--probe", "udp")
TWO = ("--nodes", "n0,n1")
#: One after the other they would need four times the bound; a wake that is lost costs seconds.
MAKESPAN_GOAL = 1.35


@pytest.fixture(scope="module")
def three() -> Iterator[LabMesh]:
    with mesh_of(3) as mesh:
        yield mesh


@pytest.fixture
def eight() -> Iterator[TracedMesh]:
    with Lab(8, redis=True) as made:
        mesh = TracedMesh(made)
        try:
            mesh.start_all()
            yield mesh
        finally:
            mesh.close()


# A link of 50 Mbit/s carries 47.8 of data, and never more; less when the machine stands still, of
# which a test of 5 s takes 0.4 s within these bounds.


@pytest.mark.quiet
def test_link_of_50_mbps_reads_44_to_50_in_both_directions(three: LabMesh) -> None:
    with shaped(three, "n1", up_mbps=50, down_mbps=50):
        rows = measured(three, *TWO, *TCP, "--duration", "5")
    for pair, row in rows.items():
        assert 44 <= row["throughput_mbps"] <= 50, pair
        assert row["connected_by"] == row["source"]


@pytest.mark.quiet
@pytest.mark.parametrize(
    ("option", "up", "down"),
    [
        pytest.param(
            *((), (17, 20), (88, 100)), id="one way and then the other", marks=pytest.mark.long
        ),
        pytest.param(("--reverse",), (17, 20), (88, 100), id="reverse"),
        # Each direction carries the other's acknowledgements too.
        pytest.param(("--bidir",), (14, 20), (60, 100), id="both at once"),
    ],
)
def test_asymmetric_link_reads_as_such_whoever_connects(
    three: LabMesh, option: Sequence[str], up: Pair, down: Pair
) -> None:
    with shaped(three, "n1", up_mbps=20, down_mbps=100):
        rows = measured(three, *TWO, *TCP, "--duration", "5", *option)
    upward, downward = rows["n1", "n0"], rows["n0", "n1"]
    assert up[0] <= upward["throughput_mbps"] <= up[1]
    assert down[0] <= downward["throughput_mbps"] <= down[1]
    connected = [upward["connected_by"], downward["connected_by"]]
    if "--bidir" in option:
        assert len(set(connected)) == 1
    else:
        assert connected == (["n0", "n1"] if option else ["n1", "n0"])


@pytest.mark.quiet
def test_udp_loss_of_5_percent_is_within_its_binomial_bounds(three: LabMesh) -> None:
    n0, n1, n2 = three.lab.nodes
    before = counted_bytes(n1)
    options = ("--from", "n0", "--to", "n1", "--duration", "4", "--bitrate", "8")
    with three.command(n2, "run", "--json", *UDP, *options) as command:
        # The loss begins once data flows: iperf3 sends its first packet, a greeting, only once.
        wait_until_moved(n1, before + 200_000)
        first = counted_bytes(n1) - before
        three.lab.loss(n0, n1, 5, "udp")
        last = counted_bytes(n1) - before
        said = command.end(ENDS_S)
    three.lab.clear()
    assert said.code == 0, said.err
    row = said.rows["n0", "n1"]
    sent = row["sent"]
    # What stands still at its end sends less.
    assert 0.75 < sent / (4 * 8e6 / 8 / 1448) < 1.02
    lost = row["packet_loss_pct"] / 100 * sent
    # The rule took hold at some moment between the two counts.
    least, most = sent - last / 1514, sent - first / 1514
    assert 0.2 * sent < least < most < sent
    slack = 6 * sqrt(sent * 0.05 * 0.95)
    assert 0.05 * least - slack < lost < 0.05 * most + slack
    assert row["jitter_rfc3550_ms"] > 0
    assert 0.75 < row["throughput_mbps"] / (8 * (1 - lost / sent)) < 1.03


@pytest.mark.quiet
def test_loaded_rtt_rises_on_a_buffered_link_and_not_on_an_idle_one(three: LabMesh) -> None:
    pair = ("--from", "n0", "--to", "n1", "--congestion", "cubic", "--duration", "2")
    both = ("--probe", "ping", *TCP, *pair)
    with shaped(three, "n1", down_mbps=20, buffer_ms=100):
        full = measured(three, *both)["n0", "n1"]
    assert full["rtt_idle_median_ms"] < 2
    assert 20 < full["rtt_loaded_median_ms"] < 130
    easy = measured(three, *both, "--bitrate", "2")["n0", "n1"]
    assert easy["rtt_idle_median_ms"] < 2
    assert easy["rtt_loaded_median_ms"] < 2


@pytest.mark.long
@pytest.mark.quiet
def test_eight_nodes_test_one_at_a_time_each_and_near_the_bound(eight: TracedMesh) -> None:
    both = ("--probe", "ping", *TCP, "--duration", "1", *EASY)
    said = eight.cli(eight.lab.nodes[5], "run", "--json", *both, timeout_s=ENDS_S)
    assert said.code == 0, said.err
    pings, tests = rows_of(eight, said.run, "ping"), rows_of(eight, said.run)
    assert (len(pings), len(tests)) == (56, 56)
    assert len(eight.spans("client")) == 56
    # One that its node had to end, because it was slower than the next look, is not in.
    assert 50 <= len(eight.spans("server")) <= 56
    assert clashes(eight.spans("client")) == []
    assert clashes(eight.spans("server")) == []
    spans = list(map(span_of, tests.values()))
    assert clashes(spans) == []
    # From the last echo to the last test, so what lies between the phases is in it.
    pinged = max(map(ended_at, pings.values()))
    makespan_s = max(span.end for span in spans) - pinged
    # On a slow machine a test takes longer, and so does beginning the next at once.
    each_s = median(span.end - span.begin for span in spans) + quantiles(gaps_s(spans))[0]
    assert makespan_s <= MAKESPAN_GOAL * each_s * least_rounds(permutations(range(8), 2))
    assert min(span.begin for span in spans) > pinged


def gaps_s(spans: Sequence[Span]) -> list[float]:
    """Give the times between two tests of each node."""
    found = []
    for name in frozenset.union(*(span.nodes for span in spans)):
        mine = sorted((s for s in spans if name in s.nodes), key=lambda span: span.begin)
        found += [after.begin - before.end for before, after in pairwise(mine)]
    return found
