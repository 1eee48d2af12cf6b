"""Throughput in the mesh keeps to its rules: shared links, budgets, what a node allows, NAT."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import combinations

import pytest
from waiting import wait_until

from lab.mesh import LabMesh, together
from lab.transfer_runs import (
    EASY,
    ENDS_S,
    TCP,
    clashes,
    counted_bytes,
    ended_ok,
    overlap,
    rows_of,
    span_of,
    took_s,
    wait_for_a_day,
)
from worker.model.measurement import Outcome
from worker.model.options import ThroughputOptions
from worker.transfer.answer import Request
from worker.transfer.leases import End, acquire, new_token, release, spent_today
from worker.wire import keyspace, rq_jobs

pytestmark = pytest.mark.lab

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
            assert {rows[pair].detail.connected_by} == expected
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
    job = rq_jobs.enqueuing(keyspace.serve_queue("n1"), keyspace.SERVE, asdict(request))
    rq_jobs.carry_out(mesh.connection, job)
    ready = keyspace.ready_key(request.token)
    wait_until(lambda: bool(mesh.connection.exists(ready)), "the server is ready", ENDS_S)
    release(mesh.connection, lease)
    ended_ok(mesh, mesh.detach(n0, *options))
    assert "near gave it up before it connected" in mesh.logs()
    assert "the node was stopped" not in mesh.logs()
