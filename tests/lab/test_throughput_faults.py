"""Something is killed or cut off in a throughput test of the mesh: what that costs, and whom."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from waiting import wait_until

from coordinator.cli.view.report import show_report
from coordinator.results.matrix import make_report
from lab import namespaces
from lab.mesh import LabMesh, children_of, together
from lab.transfer_runs import (
    EASY,
    ENDS_S,
    FREE_S,
    TCP,
    a_test_stopped,
    assert_ends_whole,
    counted_bytes,
    ended_ok,
    held_by,
    in_a_test,
    iperf3_on,
    kill,
    lease_keys,
    lease_of,
    node_of,
    pairs_of,
    responder_pid,
    rows_of,
    shaped,
    wait_for_a_day,
    wait_until_back,
    wait_until_moved,
)
from worker.model.measurement import Outcome
from worker.transfer.leases import spent_today

pytestmark = pytest.mark.lab

#: What may become of a pair of which one node was cut off in the middle.
LOST = {Outcome.SOURCE_LOST, Outcome.TARGET_LOST}
CUT_OFF = {Outcome.TIMEOUT, Outcome.BAD_REPLY, Outcome.UNREACHABLE, *LOST}

#: Of a test that is broken off long before its end.
LONG = ("--duration", "60")


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
