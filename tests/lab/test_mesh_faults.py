"""The whole mesh in the lab when something fails: nodes, links, processes, Redis."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from waiting import wait_until

from coordinator.results.results import read
from lab import namespaces
from lab.mesh import LabMesh, children_of, together
from lab.mesh_runs import LONG, LONGER, OK, run
from lab.node import Node
from worker.model import version
from worker.model.measurement import Outcome
from worker.model.text import iso_utc
from worker.wire import keyspace, liveness, run_record
from worker.wire.registry import read_nodes

pytestmark = pytest.mark.lab

#: What a target that is not there may look like: silence, or what the source's own kernel says.
ABSENT = {Outcome.NO_REPLY, Outcome.UNREACHABLE}
#: What may become of the row of a source that was cut off: it was measured, or is said to be lost.
MEASURED_OR_LOST = {Outcome.OK, Outcome.NO_REPLY, Outcome.UNREACHABLE, Outcome.SOURCE_LOST}

#: What a worker logs when a heartbeat has come to nothing.
GIVEN_UP = "Redis is away"
#: A silent cut is noticed by a heartbeat's time-outs, 30 s, and not by the kernel's quarter of an
#: hour; this, and what follows, leaves a busy machine its time.
NOTICE_S = 90.0
#: By then the rows of a source that fell silent are there: silence, a heartbeat, and a look.
LOST_S = liveness.ALIVE_S + liveness.HEARTBEAT_S + 60.0
#: A cut node is back once its present attempt is over and a heartbeat is due, 40 s.
BACK_S = 120.0

#: All results of a sweep are on the disk within this time after the first. The time-outs of each
#: batch would take longer.
KEPT_S = 60.0
#: SIGTERM is answered in 10 s; the rest is a busy machine's. Children that were waited for would
#: take longer.
STOP_S = 18.0
#: A result of 150 echoes takes more than this.
LEAST_LETTER_BYTES = 500


@together(3)
def test_node_unplugged_before_the_run_gets_a_whole_row_that_says_so(mesh: LabMesh) -> None:
    n0, _, n2 = mesh.lab.nodes
    mesh.lab.unplug(n2)
    file = mesh.lab.directory / "mesh.csv"
    said = mesh.cli(n0, "run", "--json", "--csv", str(file))
    assert said.code == 4
    rows = mesh.rows(said.run)
    assert {pair for pair, row in rows.items() if row.outcome is Outcome.SOURCE_LOST} == {
        ("n2", "n0"),
        ("n2", "n1"),
    }
    assert {rows["n0", "n2"].outcome, rows["n1", "n2"].outcome} <= ABSENT
    assert rows["n0", "n2"].packet_loss_pct == 100
    assert rows["n0", "n1"].outcome is Outcome.OK
    assert mesh.state(said.run).status == "done"
    assert mesh.cli(n0, "verify", said.run, "--csv", str(file)).code == 0
    assert "n2" not in mesh.alive()
    mesh.lab.plug(n2)
    mesh.wait_until_alive("n2", deadline_s=BACK_S)
    assert len(mesh.rows(said.run)) == 6


@together(3)
def test_late_results_of_a_node_that_was_lost_in_a_run_do_not_appear_twice(
    mesh: LabMesh,
) -> None:
    n0, _, n2 = mesh.lab.nodes
    run_id = mesh.detach(n0, *LONGER)
    mesh.wait_until_begun(run_id)
    mesh.lab.unplug(n2)
    assert mesh.wait_until_ended(run_id, LOST_S).status == "done"
    assert mesh.outcomes(run_id, source="n2") == {Outcome.SOURCE_LOST}
    assert mesh.rows(run_id)["n0", "n2"].packet_loss_pct
    wait_until(lambda: mesh.outbox_bytes("n2") > 0, "n2 keeps its results")
    mesh.lab.plug(n2)
    mesh.wait_until_alive("n2", deadline_s=BACK_S)
    wait_until(lambda: mesh.outbox_bytes("n2") == 0, "n2 has sent its results", BACK_S)
    assert mesh.outcomes(run_id, source="n2") == {Outcome.SOURCE_LOST}
    assert run(mesh, n2).code == 0


@together(3)
def test_silent_cut_of_20_s_leaves_one_row_a_pair_and_a_node_that_goes_on(mesh: LabMesh) -> None:
    n0, _, n2 = mesh.lab.nodes
    run_id = mesh.detach(n0, "--count", "100")
    mesh.wait_until_begun(run_id)
    heal_at = mesh.seconds() + 20
    mesh.lab.cut(n2, mesh.lab.redis_node)
    wait_until(lambda: mesh.seconds() >= heal_at, "20 s are over")
    mesh.lab.heal(n2, mesh.lab.redis_node)
    assert mesh.wait_until_ended(run_id, BACK_S + LOST_S).status == "done"
    assert mesh.outcomes(run_id, source="n2") <= MEASURED_OR_LOST
    assert mesh.outcomes(run_id, source="n0") == OK
    mesh.wait_until_alive("n2", deadline_s=BACK_S)
    assert run(mesh, n2).code == 0
    assert len(mesh.rows(run_id)) == 6


@together(3)
def test_silent_cut_is_noticed_soon_and_results_are_kept(mesh: LabMesh) -> None:
    n0, _, n2 = mesh.lab.nodes
    run_id = mesh.detach(n0, *LONGER)
    mesh.wait_until_begun(run_id)
    mesh.lab.cut(n2, mesh.lab.redis_node)
    wait_until(lambda: GIVEN_UP in mesh.log("n2").read_text(), "noticed", NOTICE_S)
    wait_until(lambda: mesh.outbox_bytes("n2") > 0, "n2 keeps its results")
    assert mesh.wait_until_ended(run_id, LOST_S).status == "done"
    assert mesh.outcomes(run_id, source="n2") == {Outcome.SOURCE_LOST}
    mesh.lab.heal(n2, mesh.lab.redis_node)
    mesh.wait_until_alive("n2", deadline_s=BACK_S)
    wait_until(lambda: mesh.outbox_bytes("n2") == 0, "n2 has sent its results", BACK_S)
    assert len(mesh.rows(run_id)) == 6
    assert run(mesh, n2).code == 0


@together(2)
def test_results_of_many_targets_are_all_on_disk_soon_after_redis_falls_silent(
    mesh: LabMesh,
) -> None:
    n0, n1 = mesh.lab.nodes
    names = [f"alias-{number}" for number in range(60)]
    facts = ("boot", "netns")  # else 60 machines would claim one address, and none is measured
    there = mesh.connection.hmget(keyspace.node_key("n1"), facts)
    for name in names:
        record: dict[Any, Any] = dict(zip(facts, there, strict=True))
        record |= {"address": n1.address, "wire": version.WIRE_VERSION}
        mesh.connection.hset(keyspace.node_key(name), mapping=record)
        mesh.connection.zadd(keyspace.NODES, {name: mesh.seconds()})
    run_id = mesh.detach(n0, "--from", "n0", "--to", ",".join(names), *LONG)
    mesh.wait_until_begun(run_id)
    mesh.lab.cut(mesh.lab.redis_node)
    silent_at = mesh.seconds()
    wait_until(lambda: mesh.outbox_bytes("n0") > 0, "the sweep ends")
    whole = len(names) * LEAST_LETTER_BYTES
    wait_until(lambda: mesh.outbox_bytes("n0") > whole, "all results are on disk", KEPT_S)
    # Longer than it takes to tell that it was Redis that was away, not a node.
    wait_until(lambda: mesh.seconds() > silent_at + liveness.ALIVE_S, "nobody was heard")
    mesh.lab.heal(mesh.lab.redis_node)
    assert mesh.wait_until_ended(run_id, BACK_S + LOST_S).failed == 0
    assert len(mesh.rows(run_id)) == len(names)


@together(3)
def test_terminated_worker_hands_its_row_back_and_finishes_it_after_a_restart(
    mesh: LabMesh,
) -> None:
    n0, _, n2 = mesh.lab.nodes
    run_id = mesh.detach(n0, *LONG)
    mesh.wait_until_begun(run_id)
    begun = started_at(mesh, run_id, "n2")
    mesh.workers["n2"].terminate()
    assert mesh.workers["n2"].wait(60) == 0
    assert list(namespaces.pids_inside([n2.namespace])) == []
    assert "n2" not in mesh.alive()
    assert started_at(mesh, run_id, "n2") is None
    mesh.start(n2)
    mesh.wait_until_begun(run_id, "n2")
    assert started_at(mesh, run_id, "n2") != begun
    state = mesh.wait_until_ended(run_id)
    assert (state.status, state.failed) == ("done", 0)
    assert len(mesh.rows(run_id)) == 6


@together(2)
def test_worker_that_is_cut_from_redis_answers_sigterm_in_10_s(mesh: LabMesh) -> None:
    n1 = mesh.lab.nodes[1]
    mesh.lab.cut(n1, mesh.lab.redis_node)
    tries_at = seen_at(mesh, "n1") + liveness.HEARTBEAT_S + 1
    wait_until(lambda: mesh.seconds() > tries_at, "it tries to beat")
    given_up = mesh.log("n1").read_text().count(GIVEN_UP)
    mesh.workers["n1"].terminate()
    mesh.workers["n1"].wait(STOP_S)
    assert mesh.log("n1").read_text().count(GIVEN_UP) == given_up
    assert list(namespaces.pids_inside([n1.namespace])) == []


@together(2)
def test_clock_of_a_node_behind_a_full_queue_is_known_within_its_uncertainty(
    mesh: LabMesh,
) -> None:
    n0, n1 = mesh.lab.nodes
    before = seen_at(mesh, "n1")
    mesh.lab.shape(n1, up_mbps=1, buffer_ms=1500)
    n0.start(["iperf3", "--server", "--one-off", "--port", "5001"])
    n0.wait_until_listening(5001)
    # Not TCP, which leaves its packets out of a full queue of its own machine.
    upload = ["iperf3", "--client", n0.address, "--port", "5001", "--time", "600", "--udp"]
    n1.start([*upload, "--bitrate", "370k", "--parallel", "3", "--length", "1400"])
    wait_until(lambda: queue_s(n1, mesh.lab.redis_node) > 0.7, "the upload fills the queue")
    # Two of its heartbeats went through the queue; all namespaces share one clock.
    beats = before + 3.5 * liveness.HEARTBEAT_S
    wait_until(lambda: seen_at(mesh, "n1") > beats, "it was heard again and again")
    wait_until(lambda: queue_s(n1, mesh.lab.redis_node) > 0.7, "the queue is full still")
    clock = {one.name: one for one in read_nodes(mesh.connection)}["n1"]
    assert clock.clock_offset_ms is not None
    assert clock.clock_offset_uncertainty_ms is not None
    assert abs(clock.clock_offset_ms) <= clock.clock_offset_uncertainty_ms < 300
    (clocks,) = (
        line for line in mesh.cli(n0, "doctor", "--json").lines if line["check"] == "clocks"
    )
    assert clocks["status"] == "ok", clocks
    # Now for a row that says what the heartbeats through the queue have found.
    mesh.lab.shape(n1)
    folder = ("--no-plot", "--out", str(mesh.lab.directory))
    said = mesh.cli(n0, "test", "n0", "--nodes", "n1", "-d", "1", "-i", "1", "--json", *folder)
    (round_,) = (line for line in said.lines if line["type"] == "round")
    (measured,) = (one for _, one in read(mesh.connection) if one.source == "n1")
    assert round_["started_at"] == iso_utc(measured.started_at)
    assert abs(measured.detail.clock_offset_ms) <= measured.detail.clock_offset_uncertainty_ms


@together(4)
def test_kill_9_of_any_process_of_a_node_leaves_a_whole_matrix(mesh: LabMesh) -> None:
    n0, _, n2, n3 = mesh.lab.nodes
    run_id = mesh.detach(n3, *LONGER)
    mesh.wait_until_begun(run_id)
    os.kill(mesh.horse_pid("n0"), signal.SIGKILL)
    os.kill(mesh.prober_pid("n1"), signal.SIGKILL)
    mesh.workers["n2"].kill()
    assert mesh.wait_until_ended(run_id, LOST_S).status == "done"
    assert mesh.outcomes(run_id, source="n0") == {Outcome.CRASHED}
    assert mesh.outcomes(run_id, source="n3") == OK
    for orphan in ("n1", "n2"):
        assert mesh.outcomes(run_id, source=orphan) <= MEASURED_OR_LOST
    wait_until(lambda: not any(namespaces.pids_inside([n2.namespace])), "n2's orphans end")
    mesh.start(n2)  # and is not refused its own name
    mesh.wait_until_alive("n2")
    assert run(mesh, n0, "--count", "5").code == 0


@together(3, persist="always")
def test_redis_that_is_killed_in_a_run_and_keeps_its_data_costs_no_row(mesh: LabMesh) -> None:
    run_id = mesh.detach(mesh.lab.nodes[0], *LONG)
    mesh.wait_until_begun(run_id)
    mesh.lab.redis.kill()
    wait_until(lambda: all(map(mesh.outbox_bytes, mesh.workers)), "results are kept")
    mesh.lab.redis.start()
    state = mesh.wait_until_ended(run_id)
    assert (state.status, state.failed) == ("done", 0)
    assert len(mesh.rows(run_id)) == 6
    wait_until(lambda: all_probers_serve(mesh), "every prober is back")
    assert run(mesh, mesh.lab.nodes[1]).code == 0


@together(3, persist="always")
def test_redis_that_was_away_longer_than_a_node_may_be_silent_costs_no_row(
    mesh: LabMesh,
) -> None:
    run_id = mesh.detach(mesh.lab.nodes[0], *LONG)
    mesh.wait_until_begun(run_id)
    last_seen = max(seen_at(mesh, node.name) for node in mesh.lab.nodes)
    mesh.lab.redis.kill()
    # Just after the nodes tried to beat once more: whoever follows the run looks after it before
    # the next heartbeat.
    back_at = last_seen + liveness.ALIVE_S + 3
    wait_until(lambda: mesh.seconds() > back_at, "nobody was heard for long enough")
    mesh.lab.redis.start()
    said = mesh.cli(mesh.lab.nodes[1], "show", "--follow", "--json", run_id)
    assert {row["outcome"] for row in said.rows.values()} == {"ok"}
    assert mesh.wait_until_ended(run_id).failed == 0
    assert len(mesh.rows(run_id)) == 6


@together(2)
def test_mesh_goes_on_by_itself_on_a_redis_that_lost_its_data(mesh: LabMesh) -> None:
    n0, n1 = mesh.lab.nodes
    run_id = mesh.detach(n0, "--count", "80")
    mesh.wait_until_begun(run_id)
    mesh.lab.redis.kill()
    mesh.lab.redis.start()
    mesh.wait_until_alive("n0", "n1")
    gone = mesh.cli(n1, "show", run_id)
    assert gone.code == 2
    assert gone.err.startswith(f"error: run ('{run_id}'): there is none yet")
    wait_until(lambda: all_probers_serve(mesh), "both probers are registered again")
    assert run(mesh, n1).code == 0


def started_at(mesh: LabMesh, run_id: str, name: str) -> Any:
    """Give when a node began its row, None when it has not."""
    row = mesh.state(run_id).plan.index_of[name]
    return mesh.connection.hget(keyspace.run_key(run_id), run_record.row_fields(0, row).started)


def queue_s(source: Node, target: Node) -> float:
    """Give how long an echo takes now, in seconds; 0 without an answer."""
    said = source.run(["ping", "-n", "-c", "1", "-W", "5", target.address], check=False).stdout
    return float(said.partition("time=")[2].split()[0]) / 1e3 if "time=" in said else 0.0


def seen_at(mesh: LabMesh, name: str) -> float:
    """Give the time of a node's last heartbeat."""
    score = mesh.connection.zscore(keyspace.NODES, name)
    assert score is not None
    return score


def all_probers_serve(mesh: LabMesh) -> bool:
    """Tell whether RQ knows a live prober of every node."""
    pids = {name: children_of(process.pid) for name, process in mesh.workers.items()}
    return all(mesh.prober_pids(name) & set(pids[name]) for name in pids)
