"""
The whole mesh in the lab: workers on nodes, runs triggered from nodes, and everything that fails.

First what is exact, on a quiet machine; then what waits for time-outs, all of it at once. Bounds on
counts are six standard deviations.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from waiting import wait_until

from coordinator.results.results import read
from lab import namespaces
from lab.mesh import LabMesh, Said, children_of, mesh_of, together
from lab.node import Node
from worker.model import version
from worker.model.measurement import Outcome
from worker.model.text import iso_utc
from worker.wire import keyspace, node_record, run_record
from worker.wire.registry import read_nodes

pytestmark = pytest.mark.lab

OK = {Outcome.OK}
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
LOST_S = node_record.ALIVE_S + node_record.HEARTBEAT_S + 60.0
#: A cut node is back once its present attempt is over and a heartbeat is due, 40 s.
BACK_S = 120.0

#: All results of a sweep are on the disk within this time after the first. The time-outs of each
#: batch would take longer.
KEPT_S = 60.0
#: SIGTERM is answered in 10 s; the rest is a busy machine's. Children that were waited for would
#: take longer.
STOP_S = 18.0

#: Echoes of a run in which something is to happen: its sweeps last 15 s or 30 s, as a busy machine
#: may need ten to begin them all and to strike.
LONG, LONGER = ("--count", "150"), ("--count", "300")
#: A result of 150 echoes takes more than this.
LEAST_LETTER_BYTES = 1600

#: A user without any right but to read the interpreter where it is installed.
UNPRIVILEGED = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
    "--bounding-set=-all,+dac_read_search",
)


@pytest.fixture(scope="module")
def eight() -> Iterator[LabMesh]:
    with mesh_of(8) as mesh:
        yield mesh


# What is exact.


@pytest.mark.quiet
def test_full_mesh_has_one_ok_row_a_pair_and_one_job_a_source(
    eight: LabMesh, tmp_path: Path
) -> None:
    pushed = pushes(eight)
    file = tmp_path / "mesh.csv"
    said = run(eight, eight.lab.nodes[3], "--csv", str(file))
    assert len(said.rows) == 56
    assert eight.outcomes(said.run, source="n0") == OK
    assert len(file.read_text().splitlines()) == 57
    assert eight.cli(eight.lab.nodes[5], "verify", said.run, "--csv", str(file)).code == 0
    jobs = [key for key in hash_of(eight, said.run) if key.startswith("job:")]
    assert len(jobs) == 8
    # Beside the sweeps each node is asked once who it is, its address being a private one, and the
    # run is closed: an advance by who is last, on a slow machine by heartbeats, too. Nothing is
    # enqueued for each pair.
    assert 16 < pushes(eight) - pushed < 24


@pytest.mark.quiet
def test_known_delay_is_read_within_1_ms_and_no_other_pair_sees_it(eight: LabMesh) -> None:
    n0, n1, n2, n3, *_ = eight.lab.nodes
    with eight.lab.at_once():
        eight.lab.round_trip(n0, n1, 20)
        eight.lab.delay(n2, n3, 15)
        eight.lab.delay(n3, n2, 5)
    rows = run(eight, n0, "--count", "20").rows
    eight.lab.clear()
    delayed = {("n0", "n1"), ("n1", "n0"), ("n2", "n3"), ("n3", "n2")}
    for pair in delayed:
        assert 20 <= rows[pair]["rtt_min_ms"] < 21, pair
        assert 20 <= rows[pair]["rtt_median_ms"] < 21, pair
    assert max(row["rtt_median_ms"] for pair, row in rows.items() if pair not in delayed) < 1


@pytest.mark.quiet
def test_one_way_loss_is_binomial_in_both_rows_of_the_pair_and_in_no_other(
    eight: LabMesh,
) -> None:
    n4, n5, n6 = eight.lab.nodes[4:7]
    eight.lab.loss(n4, n5, 20, "icmp")
    options = ("--nodes", "n4,n5,n6", "--count", "400", "--interval", "0.01")
    said = run(eight, n6, *options)
    eight.lab.clear()
    for pair, row in said.rows.items():
        assert row["sent"] == 400
        if set(pair) == {"n4", "n5"}:
            # Requests one way, replies the other: each echo crosses the loss once.
            assert row["received"] == pytest.approx(320, abs=6 * (400 * 0.2 * 0.8) ** 0.5)
            assert row["packet_loss_pct"] == 100 * (400 - row["received"]) / 400
            assert row["rtts_ms"].count(None) == 400 - row["received"] + row["times_refused"]
        else:
            assert row["packet_loss_pct"] == 0, pair


@pytest.mark.quiet
def test_second_node_of_a_name_is_refused_in_one_line(eight: LabMesh) -> None:
    same_machine = eight.cli(
        *(eight.lab.nodes[0], "worker", "--name", "n1"),
        *("--state-dir", str(eight.state_dir("n1"))),
    )
    elsewhere = eight.cli(
        *(eight.lab.nodes[0], "worker", "--name", "n1"),
        *("--state-dir", str(eight.state_dir("elsewhere"))),
    )
    for said in (same_machine, elsewhere):
        assert said.code == 2
        assert said.err.startswith("error: node name (n1) is ")
        assert said.err.count("\n") == 1
    assert "n1" in eight.alive()


# What waits.


@together(4)
def test_full_mesh_over_ipv6(mesh: LabMesh) -> None:
    names = [f"six-{number}" for number in range(4)]
    for name, node in zip(names, mesh.lab.nodes, strict=True):
        mesh.start(node, "--address", node.address6, name=name)
    mesh.wait_until_alive(*names)
    rows = run(mesh, mesh.lab.nodes[0], "--nodes", ",".join(names)).rows
    assert len(rows) == 12
    assert {row["address"] for row in rows.values()} == {n.address6 for n in mesh.lab.nodes}


@together(2)
def test_without_privilege_a_row_names_the_command_that_mends_it(mesh: LabMesh) -> None:
    names = ("plain-0", "plain-1")
    mesh.lab.directory.chmod(0o711)
    for name, node in zip(names, mesh.lab.nodes, strict=True):
        mesh.state_dir(name).mkdir()
        os.chown(mesh.state_dir(name), 65534, 65534)
        mesh.start(node, name=name, prefix=UNPRIVILEGED)
    mesh.wait_until_alive(*names)
    assert {n.icmp for n in read_nodes(mesh.connection) if n.name in names} == {"none"}
    refused = mesh.cli(mesh.lab.nodes[0], "run", "--json", "--nodes", ",".join(names))
    assert refused.code == 4
    assert {row["outcome"] for row in refused.rows.values()} == {"tool_missing"}
    assert {row["latency_ms"] for row in refused.rows.values()} == {None}
    for node in mesh.lab.nodes:
        mend = refused.rows[names]["error"].partition("sudo ")[2]
        node.run(shlex.split(mend))
    rows = run(mesh, mesh.lab.nodes[0], "--nodes", ",".join(names)).rows
    assert {row["socket"] for row in rows.values()} == {"datagram"}


@together(3)
def test_same_plan_triggered_twice_at_once_is_one_run_and_new_makes_a_second(
    mesh: LabMesh,
) -> None:
    n0, n1, n2 = mesh.lab.nodes
    options = ("run", "--json", *LONG)
    with mesh.command(n0, *options) as one, mesh.command(n1, *options) as two:
        runs = {one.first_line()["run"], two.first_line()["run"]}
        assert len(runs) == 1
        third = mesh.detach(n2, "--new", *LONG)
        for command in (one, two):
            said = command.end()
            assert (said.code, len(said.rows)) == (0, 6)
    runs.add(third)
    assert mesh.wait_until_ended(third).failed == 0
    listed = mesh.cli(n2, "runs", "--json").lines
    assert {line["run"] for line in listed} == runs
    assert len(runs) == 2


@together(3)
def test_run_is_cancelled_from_any_node_and_its_sweeps_end(mesh: LabMesh) -> None:
    n0, n1, n2 = mesh.lab.nodes
    with mesh.command(n0, "run", "--json", "--count", "3000") as watching:
        run_id = watching.first_line()["run"]
        mesh.wait_until_begun(run_id)
        assert mesh.cli(n1, "cancel", run_id).code == 0
        said = watching.end()
    assert said.code == 4
    assert {row["outcome"] for row in said.rows.values()} == {"cancelled"}
    assert len(mesh.rows(run_id)) == 6
    assert mesh.state(run_id).status == "cancelled"
    # Sweeps of five minutes would hold this one up for as long.
    after = mesh.detach(n2)
    assert mesh.wait_until_ended(after, 120).failed == 0


@together(3)
def test_ctrl_c_detaches_and_the_run_goes_on(mesh: LabMesh) -> None:
    with mesh.command(mesh.lab.nodes[0], "run", "--json", *LONGER) as watching:
        run_id = watching.first_line()["run"]
        mesh.wait_until_begun(run_id)
        watching.interrupt()
        said = watching.end()
    assert said.code == 130
    assert f"ptzmesh cancel {run_id}" in said.err
    assert mesh.state(run_id).is_open
    assert mesh.wait_until_ended(run_id).status == "done"
    assert mesh.state(run_id).failed == 0
    assert len(mesh.rows(run_id)) == 6


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
    wait_until(lambda: mesh.seconds() > silent_at + node_record.ALIVE_S, "nobody was heard")
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
    tries_at = seen_at(mesh, "n1") + node_record.HEARTBEAT_S + 1
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
    beats = before + 3.5 * node_record.HEARTBEAT_S
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
    assert abs(measured.detail["clock_offset_ms"]) <= measured.detail["clock_offset_uncertainty_ms"]


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
    back_at = last_seen + node_record.ALIVE_S + 3
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


def run(mesh: LabMesh, node: Node, *options: str) -> Said:
    """Run a plan that must succeed: every pair there once, and ok."""
    said = mesh.cli(node, "run", "--json", *options)
    assert said.code == 0, said.err
    assert {row["outcome"] for row in said.rows.values()} == {"ok"}
    assert len(mesh.rows(said.run)) == len(said.rows)
    return said


def pushes(mesh: LabMesh) -> int:
    """Give how many jobs RQ has put into queues since Redis started."""
    stats = cast("dict[str, dict[str, int]]", mesh.connection.info("commandstats"))
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("rpush", "lpush"))


def hash_of(mesh: LabMesh, run_id: str) -> list[str]:
    """Give the names of the fields of a run's hash."""
    keys = cast("list[bytes]", mesh.connection.hkeys(keyspace.run_key(run_id)))
    return [key.decode() for key in keys]


def started_at(mesh: LabMesh, run_id: str, name: str) -> Any:
    """Give when a node began its row, None when it has not."""
    row = mesh.state(run_id).plan.index_of(name)
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
