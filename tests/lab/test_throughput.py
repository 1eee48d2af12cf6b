"""
Throughput through the whole mesh in the lab: workers on nodes, runs triggered from nodes.

First what is exact, on a quiet machine; then what waits, all of it at once. Bounds on counts are
five standard deviations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from io import StringIO
from itertools import combinations, pairwise, permutations
from math import sqrt
from statistics import median, quantiles

import pytest
from rich.console import Console
from waiting import wait_until

from coordinator.cli.view.watch import show_report
from coordinator.results.matrix import make_report
from lab import namespaces
from lab.mesh import LabMesh, Pair, children_of, mesh_of, together
from lab.net import Lab
from lab.transfer_runs import (
    ENDS_S,
    FREE_S,
    TCP,
    Span,
    TracedMesh,
    a_test_stopped,
    assert_ends_whole,
    clashes,
    counted_bytes,
    ended_at,
    ended_ok,
    held_by,
    in_a_test,
    iperf3_on,
    kill,
    lease_keys,
    lease_of,
    measured,
    node_of,
    overlap,
    pairs_of,
    responder_pid,
    rows_of,
    shaped,
    span_of,
    took_s,
    wait_for_a_day,
    wait_until_back,
    wait_until_moved,
)
from worker.model.measurement import Outcome
from worker.model.options import ThroughputOptions
from worker.model.tournament import least_rounds
from worker.transfer.answer import Request
from worker.transfer.leases import End, acquire, new_token, release, spent_today
from worker.wire import keyspace, rq_jobs

pytestmark = pytest.mark.lab

UDP = ("--probe", "udp")
#: What may become of a pair of which one node was cut off in the middle.
LOST = {Outcome.SOURCE_LOST, Outcome.TARGET_LOST}
CUT_OFF = {Outcome.TIMEOUT, Outcome.BAD_REPLY, Outcome.UNREACHABLE, *LOST}
TWO = ("--nodes", "n0,n1")

#: All four tests at once of a mesh of eight leave the processor idle most of the time.
EASY = ("--bitrate", "10")
#: One after the other they would need four times the bound; a wake that is lost costs seconds.
MAKESPAN_GOAL = 1.35

#: A refusal does not take the time of such a test, however busy the machine.
LONG = ("--duration", "60")
AT_ONCE_S = 30.0

#: What a router with NAT does: nobody gets through who was not asked.
NAT = """table inet nat {
  chain in {
    type filter hook input priority 0
    ct state established,related accept
    meta l4proto { icmp, ipv6-icmp } accept
    drop
  }
}
"""


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


# What is exact.


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


# What waits.


@together(4)
def test_shared_link_of_capacity_1_carries_one_test_at_a_time(mesh: LabMesh) -> None:
    names = ["cell-0", "cell-1", "cell-2"]
    for name, node in zip(names, mesh.lab.nodes, strict=False):
        mesh.start(node, "--link", "cell=1", name=name)
    mesh.wait_until_alive(*names)
    # Three pairs without a node in common, and one beside the cell.
    options = ("--from", f"{','.join(names)},n3", "--to", "n0,n1,n2", "--duration", "1")
    rows = ended_ok(mesh, mesh.detach(mesh.lab.nodes[3], *options, *TCP, *EASY))
    within = [span_of(row) for (source, _), row in rows.items() if source in names]
    beside = [span_of(row) for (source, _), row in rows.items() if source == "n3"]
    assert (len(within), len(beside)) == (9, 3)
    assert [pair for pair in combinations(within, 2) if overlap(*pair)] == []
    assert any(overlap(a, b) for a in within for b in beside)


@together(4)
def test_two_runs_at_once_share_the_nodes_and_both_end(mesh: LabMesh) -> None:
    options = ("run", "--json", "--new", "--duration", "1", *TCP, *EASY)
    n0, n1, *_ = mesh.lab.nodes
    with mesh.command(n0, *options) as one, mesh.command(n1, *options) as two:
        runs = [command.first_line()["run"] for command in (one, two)]
        assert [command.end(ENDS_S).code for command in (one, two)] == [0, 0]
    rows = [row for run in runs for row in ended_ok(mesh, run).values()]
    first, second = map(mesh.state, runs)
    assert first.closed is not None
    assert second.created < first.closed
    assert len(rows) == 24
    assert clashes(map(span_of, rows)) == []


@together(4)
def test_node_that_accepts_no_connection_connects_for_both_directions(mesh: LabMesh) -> None:
    names = ["nat-0", "nat-1"]
    for name, node in zip(names, mesh.lab.nodes, strict=False):
        node.run(["nft", "-f", "-"], stdin=NAT)
        mesh.start(node, "--no-accept", name=name)
    mesh.wait_until_alive(*names)
    options = ("--nodes", "nat-0,nat-1,n2,n3", "--duration", "1", "--probe", "udp", *TCP, *EASY)
    run = mesh.detach(mesh.lab.nodes[2], *options)
    state = mesh.wait_until_ended(run, ENDS_S)
    assert state.status == "done"
    for probe in state.plan.probes:
        rows = rows_of(mesh, run, probe)
        neither = {("nat-0", "nat-1"), ("nat-1", "nat-0")}
        assert {p for p, row in rows.items() if row.outcome is Outcome.UNREACHABLE} == neither
        for pair in rows.keys() - neither:
            assert rows[pair].outcome is Outcome.OK, rows[pair].error
            expected = set(pair) & set(names) or {pair[0]}
            assert {rows[pair].detail["connected_by"]} == expected
    alone = mesh.cli(mesh.lab.nodes[2], "run", "--json", "--nodes", ",".join(names), *LONG, *TCP)
    assert (alone.code, {row["outcome"] for row in alone.rows.values()}) == (4, {"unreachable"})
    assert took_s(alone) < AT_ONCE_S


@together(4)
def test_budget_lets_tests_through_until_the_next_may_exceed_it(mesh: LabMesh) -> None:
    n0, n1, _, n3 = mesh.lab.nodes
    # Of known bytes, whatever comes between: at 40 Mbit/s alone one that stands still sends less.
    data = 5_000_000
    cost = ("--bytes", str(data), "--bitrate", "40", *TCP)
    worst = ThroughputOptions(bytes_limit=data, bitrate_mbps=40).worst_case_bytes
    assert worst is not None
    budget = 2 * worst + worst // 2
    wait_for_a_day(mesh)
    mesh.start(n0, "--max-bytes-per-day", str(budget), name="metered")
    mesh.wait_until_alive("metered")
    before = counted_bytes(n0)
    options = ("--from", "metered", "--to", "n1,n2,n3", *cost)
    said = mesh.cli(n3, "run", "--json", *options, timeout_s=ENDS_S)
    moved = counted_bytes(n0) - before
    assert said.code == 4
    outcomes = Counter(row["outcome"] for row in said.rows.values())
    assert outcomes == {"ok": 2, "over_budget": 1}
    spent = spent_today(mesh.connection, ["metered"])["metered"]
    # Nothing that moved is left out, and no more is counted than what a lossy link would cost: data
    # crosses the wire with 1.046 times its size, in frames of 1,448 bytes of 1,514, and is
    # acknowledged by 66 bytes for every second frame, or by fewer.
    assert 2 * data < moved < spent < min(1.15 * moved, 2 * worst)
    told = mesh.cli(n1, "run", "--dry-run", "--json", *options).lines[0]
    assert told["bytes_left_today"]["metered"] == budget - spent
    assert told["bytes_left_today"]["n1"] is None
    # Before a test go a look for proxies, and the questions which handshake came and who answers.
    each = worst + (4 * 60 + 2 * 84) + (9 * 60 + 50) + 2 * (20 + 8 + 96)
    others = dict.fromkeys(("n1", "n2", "n3"), each)
    assert told["bytes_per_node"] == {"metered": 3 * each, **others}
    again = mesh.cli(n3, "run", "--json", "--nodes", "metered,n1", *LONG, "--bitrate", "40", *TCP)
    assert {row["outcome"] for row in again.rows.values()} == {"over_budget"}
    assert took_s(again) < AT_ONCE_S
    assert spent_today(mesh.connection, ["metered"])["metered"] == spent
    unbounded = mesh.cli(n3, "run", "--json", "--nodes", "metered,n1", *TCP)
    assert {row["outcome"] for row in unbounded.rows.values()} == {"denied"}


@together(2)
def test_test_that_is_broken_off_is_not_taken_for_free(mesh: LabMesh) -> None:
    n0, n1 = mesh.lab.nodes
    mesh.start(n0, "--max-bytes-per-day", str(10**9), name="metered")
    mesh.wait_until_alive("metered")
    pair = ("--from", "metered", "--to", "n1", *LONG, "--bitrate", "20", *TCP)
    wait_for_a_day(mesh)
    for broken_off in ("cancelled", "killed"):
        before = counted_bytes(n0)
        spent_before = spent_today(mesh.connection, ["metered"])["metered"]
        run = mesh.detach(n1, *pair, "--new")
        wait_until_moved(n0, before + 2_000_000)
        if broken_off == "cancelled":
            assert mesh.cli(n1, "cancel", run).code == 0
        else:
            kill(*iperf3_on(n0))
        wait_until(lambda: lease_keys(mesh) == [], "the leases are given up")
        mesh.wait_until_ended(run, ENDS_S)
        spent = spent_today(mesh.connection, ["metered"])["metered"] - spent_before
        assert spent > 0.95 * (counted_bytes(n0) - before), broken_off


@together(2)
def test_worker_killed_in_a_test_without_a_bound_leaves_what_it_moved_counted(
    mesh: LabMesh,
) -> None:
    n0, n1 = mesh.lab.nodes
    worker = mesh.start(n0, name="killed")
    mesh.wait_until_alive("killed")
    wait_for_a_day(mesh)

    def spent() -> dict[str, int]:
        return spent_today(mesh.connection, ["killed", "n1"])

    with shaped(mesh, "n1", down_mbps=20):
        before, already = counted_bytes(n0), spent()["n1"]
        run = mesh.detach(n1, "--from", "killed", "--to", "n1", "--duration", "10", *TCP)
        wait_until(lambda: spent()["killed"] > 0, "what it costs is noted", every_s=0.01)
        horse, prober = mesh.horse_pid("killed"), mesh.prober_pid("killed")
        wait_until_moved(n0, counted_bytes(n0) + 2_000_000)
        noted = spent()["killed"]
        kill(horse, prober, worker.pid, *iperf3_on(n0))
        moved = counted_bytes(n0) - before
        assert mesh.cli(n1, "cancel", run).code == 0
        wait_until(lambda: lease_keys(mesh) == [], "the lease lapses", FREE_S)
    for cost in (spent()["killed"], spent()["n1"] - already):
        # At 20 Mbit/s the five seconds from one note to the next are 12.5 MB; on a busy machine the
        # next one may be late, and the rate of the first second less than that of those after it.
        assert max(noted, 0.5 * moved) <= cost < moved + 20_000_000


@together(2)
def test_bytes_that_moved_until_a_link_died_are_told_and_counted(mesh: LabMesh) -> None:
    n0, n1 = mesh.lab.nodes
    wait_for_a_day(mesh)
    with shaped(mesh, "n1", down_mbps=20):
        before = counted_bytes(n0)
        # Without a bound nothing is reserved; the ping says how long the test is waited for.
        pair = ("--from", "n0", "--to", "n1", "--duration", "5")
        run = mesh.detach(n0, "--probe", "ping", *TCP, *pair)
        wait_until_moved(n0, before + 4_000_000)
        mesh.lab.unplug(n1)
        mesh.wait_until_ended(run, ENDS_S)
        mesh.lab.plug(n1)
    moved = counted_bytes(n0) - before
    (row,) = rows_of(mesh, run).values()
    assert row.outcome in (Outcome.TIMEOUT, Outcome.BAD_REPLY)
    state = mesh.state(run)
    report, told = make_report(state.plan, [row]), StringIO()
    show_report(state, report, Console(file=told, width=100))
    assert "the tests moved at least " in told.getvalue()
    for counted in (report.bytes_by_node["n0"], spent_today(mesh.connection, ["n0"])["n0"]):
        assert counted > 0.9 * moved > 3_000_000


@together(2)
def test_what_a_node_does_not_allow_is_denied_at_once_with_its_reason(mesh: LabMesh) -> None:
    n0, n1 = mesh.lab.nodes
    now = datetime.now().astimezone()
    hours = "-".join(f"{now + timedelta(hours=ahead):%H:%M}" for ahead in (2, 3))
    reasons = {
        "slow": ("over this node's limit of 5", "--max-bitrate", "5"),
        "short": ("over this node's limit of 1 s", "--max-duration", "1"),
        "asleep": (f"may be tested at {hours}", "--hours", hours),
        "choosy": ("does not let n0 test it", "--allow-source", "n1"),
    }
    for name, (_, *options) in reasons.items():
        mesh.start(n1, *options, name=name)
    mesh.wait_until_alive(*reasons)
    asked = ("--bitrate", "10", *TCP)
    toward = ("--from", "n0", "--to", ",".join(reasons))
    said = mesh.cli(n0, "run", "--json", *toward, *LONG, *asked)
    assert took_s(said) < AT_ONCE_S
    for name, (reason, *_) in reasons.items():
        row = said.rows["n0", name]
        assert row["outcome"] == "denied"
        assert row["error"].startswith(f"{name}: ")
        assert reason in row["error"]
    # Limits hold for what a node asks itself, too; whom it lets test it is another matter.
    back = ("--from", ",".join(reasons), "--to", "n0", "--duration", "2")
    said = mesh.cli(n0, "run", "--json", *back, *asked)
    found = {source: row["outcome"] for (source, _), row in said.rows.items()}
    assert found == {**dict.fromkeys(reasons, "denied"), "choosy": "ok"}
    unlimited = mesh.cli(n0, "run", "--json", "--from", "n0", "--to", "slow", *TCP)
    assert "ask with --bitrate" in unlimited.rows["n0", "slow"]["error"]
    allowed = ("--from", "n1", "--to", "choosy", "--duration", "1", *TCP, *EASY)
    assert mesh.cli(n0, "run", "--json", *allowed).code == 0


@together(3)
def test_pairs_of_a_node_without_iperf3_say_so_and_the_rest_goes_on(mesh: LabMesh) -> None:
    n2 = mesh.lab.nodes[2]
    empty = mesh.lab.directory / "empty"
    empty.mkdir()
    mesh.start(n2, name="bare", prefix=("env", f"PATH={empty}"))
    mesh.wait_until_alive("bare")
    listed = {line["name"]: line for line in mesh.cli(n2, "nodes", "--json").lines}
    assert listed["bare"]["iperf3"] == ""
    assert listed["n0"]["iperf3"].startswith("3.")
    options = ("--nodes", "n0,n1,bare", "--duration", "1", *TCP, *EASY)
    said = mesh.cli(n2, "run", "--json", *options)
    assert said.code == 4
    for pair, row in said.rows.items():
        assert row["outcome"] == ("tool_missing" if "bare" in pair else "ok"), pair
        assert ("iperf3 is not on PATH" in row["error"]) == ("bare" in pair)


@together(2)
def test_server_that_was_asked_for_in_vain_does_not_hold_its_node_up(mesh: LabMesh) -> None:
    n0 = mesh.lab.nodes[0]
    options = ("--duration", "1", *TCP, *EASY)
    run = mesh.detach(n0, *options)
    ended_ok(mesh, run)
    ends = End(name="n0"), [End(name="n1")]
    lease = acquire(mesh.connection, new_token(), *ends, ttl_s=ENDS_S).lease
    assert lease is not None
    request = Request(
        run=run,
        phase=0,
        performer=0,
        token=f"{lease.token}.0",
        number=0,
        family=4,
        idle_rtt_ms=None,
    )
    pipeline = mesh.connection.pipeline()
    queue = keyspace.serve_queue("n1")
    rq_jobs.enqueue(mesh.connection, pipeline, queue, keyspace.SERVE, asdict(request))
    pipeline.execute()
    ready = keyspace.ready_key(request.token)
    wait_until(lambda: bool(mesh.connection.exists(ready)), "the server is ready", ENDS_S)
    release(mesh.connection, lease)
    ended_ok(mesh, mesh.detach(n0, *options))
    assert "near gave it up before it connected" in mesh.logs()
    assert "the node was stopped" not in mesh.logs()


@together(3)
def test_client_or_server_killed_in_a_test_costs_its_pair_only(mesh: LabMesh) -> None:
    with in_a_test(mesh) as (run, first):
        kill(*iperf3_on(node_of(mesh, first[0])))
    with a_test_stopped(mesh, but=first) as second:
        kill(*iperf3_on(node_of(mesh, second[1])))
    assert_ends_whole(mesh, run, [first, second], {Outcome.BAD_REPLY})


@together(3)
def test_prober_killed_in_a_test_costs_its_row_and_holds_nobody_up(mesh: LabMesh) -> None:
    with in_a_test(mesh) as (run, pair):
        held = lease_of(mesh, pair[0])
        kill(mesh.horse_pid(pair[0]), mesh.prober_pid(pair[0]))
    wait_until(lambda: not held_by(mesh, held), "its lease lapses", FREE_S)
    row = [one for one in pairs_of(mesh, run) if one[0] == pair[0]]
    assert_ends_whole(mesh, run, row, {Outcome.OK, Outcome.SOURCE_LOST, Outcome.CRASHED})


@together(3)
def test_work_horse_killed_in_a_test_costs_its_row_at_once(mesh: LabMesh) -> None:
    with in_a_test(mesh) as (run, pair):
        held = lease_of(mesh, pair[0])
        kill(mesh.horse_pid(pair[0]))
    wait_until(lambda: not held_by(mesh, held), "its lease lapses", FREE_S)
    row = [one for one in pairs_of(mesh, run) if one[0] == pair[0]]
    assert_ends_whole(mesh, run, row, {Outcome.OK, Outcome.CRASHED})


@together(3)
def test_responder_killed_in_a_test_costs_its_pair_only(mesh: LabMesh) -> None:
    with in_a_test(mesh) as (run, pair):
        responder = responder_pid(mesh, pair[1])
        kill(*children_of(responder), responder)
    # Ok where the test had just ended, on a machine that took long to kill.
    assert_ends_whole(mesh, run, [pair], {Outcome.BAD_REPLY, Outcome.OK})


@together(3)
def test_supervisor_killed_in_a_test_leaves_a_whole_matrix(mesh: LabMesh) -> None:
    with in_a_test(mesh) as (run, pair):
        mesh.workers[pair[0]].kill()
    # Its prober ends its row as an orphan; nobody is left to answer the others, who wait in
    # vain while the node passes for alive, and no longer ask once it is silent for 30 s.
    touched = [one for one in pairs_of(mesh, run) if pair[0] in one]
    unanswered = {Outcome.OK, Outcome.TIMEOUT, *LOST}
    assert_ends_whole(mesh, run, touched, unanswered)
    wait_until(
        lambda: not list(namespaces.pids_inside([node_of(mesh, pair[0]).namespace])),
        "its orphans end",
        ENDS_S,
    )


@together(3)
def test_node_unplugged_in_a_test_costs_its_own_pairs_only(mesh: LabMesh) -> None:
    with in_a_test(mesh) as (run, pair):
        mesh.lab.unplug(node_of(mesh, pair[0]))
    touched = [one for one in pairs_of(mesh, run) if pair[0] in one]
    assert_ends_whole(mesh, run, touched, {Outcome.OK, *CUT_OFF})
    plugged = mesh.seconds()
    mesh.lab.plug(node_of(mesh, pair[0]))
    wait_until_back(mesh, pair[0], plugged)
    ended_ok(mesh, mesh.detach(mesh.lab.nodes[1], "--duration", "1", *TCP, *EASY))


@together(3, persist="always")
def test_redis_killed_in_a_test_costs_no_row(mesh: LabMesh) -> None:
    with in_a_test(mesh) as (run, _):
        mesh.lab.redis.kill()
    mesh.lab.redis.start()
    assert_ends_whole(mesh, run, pairs_of(mesh, run), {Outcome.OK, Outcome.TIMEOUT})
    assert sum(row.outcome is Outcome.OK for row in rows_of(mesh, run).values()) >= 4


@together(3)
def test_run_cancelled_in_a_test_frees_both_ends_at_once(mesh: LabMesh) -> None:
    with in_a_test(mesh, duration_s=300) as (run, _):
        pass
    assert mesh.cli(mesh.lab.nodes[2], "cancel", run).code == 0
    assert {row.outcome for row in rows_of(mesh, run).values()} == {Outcome.CANCELLED}
    # A publisher looks every 4 s whether its run is still wanted; the test would last for 5 min.
    wait_until(lambda: not any(map(iperf3_on, mesh.lab.nodes)), "no iperf3 is left", 60.0)
    # A lease that nobody gives up lapses 10 s later at the soonest.
    wait_until(lambda: lease_keys(mesh) == [], "the leases are given up", 8.0)
    ended_ok(mesh, mesh.detach(mesh.lab.nodes[1], "--duration", "1", *TCP, *EASY))
