"""
One test for each kind of fault that the lab's own tests have none for.

What is killed, cut off or unplugged on a node, and a Redis that is killed: `tests/lab`.
"""

from __future__ import annotations

import os
import signal
import time
from typing import cast

import pytest
import redis
from lab.mesh import children_of
from rq import Queue, Worker
from waiting import wait_until

from chaos.checks import assert_whole
from chaos.faults import STEP_S, fill, fill_redis
from chaos.mesh import ChaosMesh, together
from coordinator.collect.groups import default_group
from coordinator.results.results import read
from worker.model.errors import ConfigError
from worker.model.measurement import Outcome
from worker.wire import keyspace, liveness, run_record

pytestmark = pytest.mark.chaos

OK = {Outcome.OK}
#: The rows of a source that fell silent are there by then: silence, a heartbeat, and a look (55 s).
LOST_S = 180.0
#: Longer than a node, or a sweep, may be silent.
TOO_LONG_S = liveness.ALIVE_S + 6.0
#: Three echoes are under way at any time.
RTT_MS = 300
#: By which RQ finds who serves n0's own queue.
PROBERS = keyspace.queue_workers_key(keyspace.node_queue("n0"))
#: A machine that is busy delays an echo, not by as much as a clock is set.
WAIT_S = 3
#: A time that is wrong by so much is one that could be.
SMALL_STEP_S = RTT_MS / 2000


@together(4)
def test_processes_that_stand_still_longer_than_any_time_out_cost_at_most_their_own_rows(
    mesh: ChaosMesh,
) -> None:
    run = mesh.detach(mesh.desk, "--count", "100")
    mesh.wait_until_begun(run)
    wait_until(lambda: mesh.child_pid("n3", "responder") is not None, "RQ knows the responder")
    prober, responder = mesh.child_pid("n2", "prober"), mesh.child_pid("n3", "responder")
    assert prober is not None
    assert responder is not None
    halted = [mesh.horse_pid("n0"), mesh.workers["n1"].pid, prober, responder]
    halted.append(mesh.services["collector"].process.pid)
    services = dict(mesh.services)
    halted_at = time.monotonic()
    for pid in halted:
        os.kill(pid, signal.SIGSTOP)
    state = mesh.wait_until_ended(run, LOST_S)
    wait_until(lambda: time.monotonic() > halted_at + TOO_LONG_S, "it was too long", LOST_S)
    for pid in halted:
        os.kill(pid, signal.SIGCONT)
    assert state.status == "done"
    # A work-horse measures; supervisor, prober and responder only look after it.
    assert mesh.outcomes(run, source="n0") == {Outcome.SOURCE_LOST}
    for name in ("n1", "n2", "n3"):
        assert mesh.outcomes(run, source=name) == OK
    assert_whole(mesh)
    assert [service.codes for service in services.values()] == [[]] * 5  # all went on


@together(2, persist="nothing")
def test_redis_that_lost_its_data_is_joined_again_by_nodes_collector_and_who_follows(
    mesh: ChaosMesh,
) -> None:
    n0, n1 = mesh.nodes
    before = mesh.cli(n0, "run", "--json", "--count", "3").run
    wait_until(lambda: mesh.csv.read_text().count(before) == 2, "the file has the first run")
    collector = mesh.services["collector"]
    begun = mesh.trigger(n1, "--count", "80", "--probe", "ping", "--probe", "tcp")
    wait_until(lambda: begun.run is not None, "the command has said its run")
    assert begun.run is not None
    mesh.wait_until_begun(begun.run)
    mesh.kill_redis()
    mesh.start_redis()
    mesh.lockers.hold()
    assert mesh.gone_runs == {before, begun.run}
    assert begun.process.wait(60) in (2, 3)
    assert begun.file.read_text().splitlines()[-1].startswith("error: ")
    for run in mesh.gone_runs:
        said = mesh.cli(mesh.desk, "show", run)
        assert (said.code, said.err.startswith("error: run (")) == (2, True), said.err
    mesh.wait_until_alive("n0", "n1")
    wait_until(lambda: mesh.group() is not None, "the collector has its group again")
    group = mesh.group()
    assert group is not None
    assert group["name"].decode() == default_group(mesh.csv)
    done = f"sweep done run={begun.run}"
    wait_until(lambda: done in mesh.log("n0").read_text(), "the sweep of the lost run ends")
    with pytest.raises(ConfigError):  # whatever the sweep noted there at its end
        mesh.state(begun.run)
    assert_whole(mesh)
    assert collector.codes == []  # it waited, and was not started anew
    lines = mesh.csv.read_text().splitlines()
    assert sum(before in line for line in lines) == 2


@together(2, persist="nothing")
def test_redis_that_comes_back_with_an_older_copy_gives_no_pair_a_second_row(
    mesh: ChaosMesh,
) -> None:
    run = mesh.detach(mesh.nodes[0], "--count", "80")
    mesh.wait_until_begun(run)
    mesh.connection.save()
    assert mesh.wait_until_ended(run).failed == 0
    wait_until(lambda: mesh.csv.read_text().count(run) == 2, "the file has both rows")
    mesh.lab.redis.kill()
    mesh.lab.redis.start()
    assert mesh.state(run).is_open
    # Nobody measures again what was measured; Redis, which has forgotten it, ends the run so.
    assert mesh.wait_until_ended(run, LOST_S).failed == 2
    assert mesh.outcomes(run, source="n0") == {Outcome.SOURCE_LOST}
    mesh.services["collector"].process.kill()
    outcomes = assert_whole(mesh, must_be_ok=["ping"])
    assert set(outcomes) == {"ok"}


@together(3)
def test_cut_by_reset_is_seen_in_the_rows_and_fixes_by_itself(mesh: ChaosMesh) -> None:
    n0, _, n2 = mesh.nodes
    run = mesh.detach(n0, "--probe", "redis", "--count", "100", "--interval", "0.1")
    mesh.wait_until_begun(run, "n2")
    cut_at = time.monotonic()
    mesh.lab.cut(n2, mesh.lab.redis_node, silent=False)
    wait_until(lambda: time.monotonic() > cut_at + 2, "some operations failed")
    mesh.lab.heal(n2, mesh.lab.redis_node)
    assert mesh.wait_until_ended(run).failed == 0
    found = [one for _, one in read(mesh.connection, run=run) if one.probe == "redis"]
    rows = {one.source: one for one in found}
    assert 0 < rows["n2"].detail.received < rows["n2"].detail.sent
    assert rows["n2"].detail.last_error
    assert rows["n0"].packet_loss_pct is not None
    assert rows["n2"].packet_loss_pct is not None
    assert rows["n0"].packet_loss_pct < rows["n2"].packet_loss_pct

    late = mesh.detach(n0, "--count", "60")
    mesh.wait_until_begun(late)
    mesh.lab.cut(n2, silent=False)
    assert mesh.wait_until_ended(late, LOST_S).status == "done"
    assert mesh.outcomes(late, source="n2") == {Outcome.SOURCE_LOST}
    # Its sweep's last sign of life may be older than its last heartbeat.
    wait_until(lambda: "n2" not in mesh.alive(), "n2 is not alive")
    wait_until(lambda: mesh.outbox_bytes("n2") > 0, "n2 keeps what it measured")
    mesh.lab.heal(n2)
    assert_whole(mesh)


@together(3, clocks=True)
def test_clock_set_by_an_hour_moves_no_deadline_and_no_round_trip_time(mesh: ChaosMesh) -> None:
    n0, n1, n2 = mesh.nodes
    # So that replies are always under way, and come while nobody reads them.
    with mesh.lab.at_once():
        for other in (n1, n2):
            mesh.lab.round_trip(n0, other, RTT_MS)
    # Longer than RQ's look at its work-horse, which is on the wall clock.
    options = ["--count", "150", "--wait-for-reply", str(WAIT_S)]
    run = mesh.detach(n0, *options, "--probe", "ping", "--probe", "redis")
    mesh.wait_until_begun(run)
    begun = time.monotonic()
    horses = [mesh.horse_pid(node.name) for node in mesh.nodes]
    wait_until(lambda: time.monotonic() > begun + 2, "every source has echoes under way")
    # Replies that came before the step are read after it.
    for horse in horses:
        os.kill(horse, signal.SIGSTOP)
    halted = time.monotonic()
    wait_until(lambda: time.monotonic() > halted + 0.5, "replies came")
    mesh.clocks["n0"].step(STEP_S)
    mesh.clocks["n1"].step(-STEP_S)
    mesh.clocks["n2"].step(SMALL_STEP_S)
    stepped = time.monotonic()
    wait_until(lambda: time.monotonic() > stepped + 0.5, "the clocks are set")
    for horse in horses:
        os.kill(horse, signal.SIGCONT)
    # A deadline on a clock that was set back would be an hour away.
    state = mesh.wait_until_ended(run, LOST_S)
    assert state.failed == 0
    rows = {(one.source, one.target): one for one in mesh.pings(run)}
    for pair in (("n0", "n1"), ("n1", "n0"), ("n2", "n0")):
        assert rows[pair].detail.times_refused > 0, pair
        assert rows[pair].packet_loss_pct == 0, pair
    for one in rows.values():
        least_ms = RTT_MS if "n0" in (one.source, one.target) else 0
        assert least_ms < one.detail.rtt_min_ms <= one.detail.rtt_max_ms <= 1000 * WAIT_S
    # Each heartbeat tells anew; of one that was held up it is less exact.
    for name, ahead_s in (("n0", STEP_S), ("n1", -STEP_S), ("n2", SMALL_STEP_S)):
        is_near = lambda n=name, s=ahead_s: abs(offset_s(mesh, n) - s) < 0.1  # noqa: E731
        wait_until(is_near, f"{name} knows its clock", LOST_S)
    assert mesh.cli(n1, "run", "--json", *("--probe", "throughput"), *("--duration", "1")).code == 0
    assert_whole(mesh, must_be_ok=["ping", "redis", "throughput"])


@together(2, disks=["csv", "n0"])
def test_full_disk_costs_the_csv_no_row_and_a_node_no_more_than_it_could_not_keep(
    mesh: ChaosMesh,
) -> None:
    n0, n1 = mesh.nodes
    make_room = fill(mesh.csv.parent)
    collector = mesh.services["collector"]
    while collector.process.poll() is None:  # a disk has some room in the file's own last block
        assert mesh.cli(n1, "run", "--json", "--count", "1").code == 0
    said = mesh.log("collector").read_text()
    assert "cannot be written: No space left on device" in said
    assert "Traceback" not in said
    make_room()

    make_room = fill(mesh.state_dir("n0"))
    run = mesh.detach(n1, "--count", "60")
    mesh.wait_until_begun(run)
    mesh.lab.cut(n0, mesh.lab.redis_node, silent=False)
    lost = "results lost"
    wait_until(lambda: lost in mesh.log("n0").read_text(), "n0 cannot keep its results", LOST_S)
    mesh.lab.heal(n0, mesh.lab.redis_node)
    assert mesh.wait_until_ended(run, LOST_S).status == "done"
    assert mesh.outcomes(run, source="n0") <= {Outcome.SOURCE_LOST, Outcome.CRASHED}
    assert mesh.outcomes(run, source="n1") == OK
    make_room()
    assert_whole(mesh)


@together(2)
def test_redis_at_its_maxmemory_keeps_lockers_and_gets_every_row_once_there_is_room(
    mesh: ChaosMesh,
) -> None:
    n0, n1 = mesh.nodes
    run = mesh.detach(n0, "--count", "80")
    mesh.wait_until_begun(run)
    free = fill_redis(mesh.connection)
    # What no program can help: a Redis that is full takes no locker, ours or not.
    first = mesh.lockers.systems[0]
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        first.acquire_locker(0)
    mesh.lockers.assert_untouched()
    refused = mesh.cli(n1, "run", "--json", "--new")
    assert refused.code == 3
    assert "Redis is short of memory, and results wait; free memory" in refused.err
    wait_until(lambda: mesh.outbox_bytes("n0") > 0, "results are kept", LOST_S)
    mesh.lockers.assert_untouched()
    assert first.release_locker(0)
    free()
    assert first.acquire_locker(0) == 0
    mesh.lockers.assert_work()
    state = mesh.wait_until_ended(run, LOST_S)
    assert (state.status, state.failed) == ("done", 0)

    late = mesh.detach(n1, "--probe", "throughput", "--duration", "6", "--bitrate", "5")
    mesh.wait_until_begun(late)
    free = fill_redis(mesh.connection)
    wait_until(lambda: "tests wait for Redis" in mesh.logs(), "a test waits for room")
    free()
    mesh.wait_until_ended(late, LOST_S)
    # A responder whom Redis refuses cannot say its port: whoever asked it just then says so.
    outcomes = {one.outcome for one in mesh.rows(late).values()}
    assert outcomes <= {Outcome.OK, Outcome.TIMEOUT, Outcome.TARGET_BUSY}
    assert_whole(mesh, must_be_ok=["ping"])


@together(3)
def test_redis_that_stands_still_longer_than_a_node_may_be_silent_costs_no_row(
    mesh: ChaosMesh,
) -> None:
    run = mesh.detach(mesh.nodes[0], "--count", "60")
    mesh.wait_until_begun(run)
    process = mesh.lab.redis.process
    assert process is not None
    halted_at = time.monotonic()
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: time.monotonic() > halted_at + TOO_LONG_S, "it was too long", LOST_S)
    os.kill(process.pid, signal.SIGCONT)
    assert mesh.wait_until_ended(run, LOST_S).failed == 0
    collector = mesh.services["collector"]
    assert_whole(mesh, must_be_ok=["ping"])
    assert collector.codes == []


@together(2)
def test_job_that_was_taken_and_never_begun_is_measured_all_the_same(mesh: ChaosMesh) -> None:
    n0, n1 = mesh.nodes
    n0.kill_all()
    run = mesh.detach(n1, "--count", "3")
    # As a prober leaves it that is killed, or cut off, just after it has taken a job.
    field = run_record.row_fields(0, mesh.state(run).plan.index_of["n0"]).job
    job = cast("bytes", mesh.connection.hget(keyspace.run_key(run), field)).decode()
    mesh.connection.lrem(keyspace.queue_key(keyspace.node_queue("n0")), 1, job)
    mesh.connection.hset(keyspace.job_key(job), "status", "started")
    ended = mesh.tended(lambda: not mesh.state(run).is_open)
    wait_until(ended, "the run has ended", liveness.ALIVE_S + LOST_S)
    assert mesh.state(run).failed == 0
    assert_whole(mesh, must_be_ok=["ping"])


@together(2)
def test_run_whose_trigger_is_killed_goes_on_to_its_end(mesh: ChaosMesh) -> None:
    begun = mesh.trigger(mesh.nodes[0], "--count", "40")
    wait_until(lambda: begun.run is not None, "the command has said its run")
    begun.was_killed = True
    begun.process.kill()
    assert begun.run is not None
    assert mesh.wait_until_ended(begun.run).failed == 0
    # The collector is killed while it has rows to write, again and again.
    collector = mesh.services["collector"]
    for killed in range(3):
        wait_until(mesh.tended(lambda: collector.process.poll() is None), "it runs")
        mesh.cli(mesh.desk, "run", "--detach", "--new", "--count", "2")
        collector.process.kill()
        wait_until(mesh.tended(lambda n=killed: len(collector.codes) > n), "it ended")  # type: ignore[misc]  # mypy knows no default of a lambda
    assert_whole(mesh, must_be_ok=["ping"])


@together(3)
def test_run_that_is_overdue_is_ended_by_a_node_that_has_no_part_in_it(mesh: ChaosMesh) -> None:
    n0, n1, _ = mesh.nodes
    n0.kill_all()
    n1.kill_all()
    run = mesh.detach(mesh.desk, "--nodes", "n0", "--nodes", "n1", "--count", "3")
    # Nobody follows it, and nobody is started again meanwhile: there is n2, which only beats.
    assert mesh.wait_until_ended(run, LOST_S).status == "done"
    for name in ("n0", "n1"):
        assert mesh.outcomes(run, source=name) == {Outcome.SOURCE_LOST}
    assert_whole(mesh)


@together(2, persist="nothing")
def test_rq_knows_both_workers_of_each_node_again_after_redis_lost_its_data(
    mesh: ChaosMesh,
) -> None:
    # One prober watches its work-horse meanwhile; all others only wait.
    run = mesh.detach(mesh.desk, "--from", "n0", "--count", "100")
    mesh.wait_until_begun(run)
    horse = mesh.horse_pid("n0")
    (prober,) = cast("set[bytes]", mesh.connection.smembers(PROBERS))
    os.kill(horse, signal.SIGSTOP)
    mesh.kill_redis()
    mesh.start_redis()
    mesh.lockers.hold()
    wait_until(lambda: bool(mesh.connection.exists(prober)), "the prober says that it lives")
    os.kill(horse, signal.SIGCONT)
    for node in mesh.nodes:
        again = lambda name=node.name: knows_workers(mesh, name)  # noqa: E731
        wait_until(again, f"RQ knows the workers of {node.name}", LOST_S)
    assert_whole(mesh)


def knows_workers(mesh: ChaosMesh, name: str) -> bool:
    """Tell whether RQ finds a node's two live workers, and one of them by each of its queues."""
    queues = (keyspace.node_queue(name), keyspace.serve_queue(name))
    of_queue = [Worker.all(queue=Queue(queue, connection=mesh.connection)) for queue in queues]
    pids = [{one.pid for one in workers} for workers in of_queue]
    everywhere = {one.pid for one in Worker.all(mesh.connection)}
    alive = set(children_of(mesh.workers[name].pid))
    return len(alive) == 2 and all(alive & found for found in pids) and alive <= everywhere


def offset_s(mesh: ChaosMesh, name: str) -> float:
    """Give how far a node says that its clock is ahead of Redis'."""
    said = cast("bytes", mesh.connection.hget(keyspace.node_key(name), "clock_offset_ms"))
    return float(said) / 1000
