"""What a large mesh must not cost, and a sample instead of all of it."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import pytest
import redis
from rich.console import Console

from coordinator.cli.view.matrix_view import matrix_view
from coordinator.mesh import Mesh
from coordinator.results.matrix import make_report
from coordinator.runs.runs import read_run, recent
from coordinator.runs.starting import start
from integration.nodes import cli, workers
from integration.rows import beat
from worker.model import version
from worker.model.plan import MAX_NODES, Plan, PlannedNode
from worker.model.probe import with_options
from worker.probes.icmp.engine import icmp_capability
from worker.wire import keyspace, rq_jobs, run_record
from worker.wire.room import DEFAULTS
from worker.wire.round_trip import alone
from worker.wire.rows import Row

pytestmark = pytest.mark.redis


def mesh(count: int, probes: tuple[str, ...] = ("ping",)) -> Plan:
    nodes = tuple(PlannedNode(name=f"n{i}", address=f"10.0.0.{i % 250}") for i in range(count))
    everyone = tuple(range(count))
    return Plan(nodes=nodes, sources=everyone, targets=everyone, options=with_options(probes))


def sent(connection: redis.Redis) -> int:
    return int(connection.info("stats")["total_net_output_bytes"])


def test_reading_a_run_does_not_read_what_its_rows_left_in_it(connection: redis.Redis) -> None:
    run, _ = start(connection, mesh(30, ("ping", "throughput")))
    for source in range(30):
        connection.hset(keyspace.run_key(run), run_record.rtt_field(source), b"x" * 10_000)
    before = sent(connection)
    state = read_run(connection, run)
    assert sent(connection) - before < 20_000
    before = sent(connection)
    assert alone(connection, run_record.asking_runs([run], plan=state.plan)) == [state]
    assert sent(connection) - before < 5_000


def commands_of(redis_url: str, call: Callable[[], object]) -> list[str]:
    """Return what a server is asked while `call` runs, as MONITOR shows it."""
    with redis.Redis.from_url(redis_url) as watcher, watcher.monitor() as monitor:
        call()
        with redis.Redis.from_url(redis_url) as connection:
            connection.echo("that is all")
        # What a script does inside Redis is shown, too, and asks it for nothing.
        shown = (one["command"] for one in monitor.listen() if one["client_type"] != "lua")
        return list(takewhile(lambda command: "that is all" not in command, shown))


def test_trigger_reads_each_node_once_and_the_limits_once(
    redis_url: str, connection: redis.Redis
) -> None:
    names = [f"n{number}" for number in range(100)]
    for number, name in enumerate(names):
        record = {"address": f"10.0.0.{number + 1}", "wire": version.WIRE_VERSION, "accepts": "1"}
        connection.hset(keyspace.node_key(name), mapping=dict(record))
    beat(connection, *names)
    triggers: list[Callable[[], object]] = [
        lambda: cli(redis_url, "run", "--detach", "--to", "n0"),
        lambda: cli(redis_url, "run", "--new", "--detach", "--to", "n0"),
        lambda: Mesh(redis_url).run(targets=["n0"], join=False),
    ]
    for trigger in triggers:
        commands = commands_of(redis_url, trigger)
        assert len(recent(connection, 9)) == triggers.index(trigger) + 1
        asked = Counter(key for one in commands for key in one.split()[1:2])
        assert {asked[keyspace.node_key(name)] for name in names} == {1}
        assert asked[keyspace.LIMITS] == 1


def test_row_of_a_large_mesh_reads_its_own_part_of_the_bitmap(connection: redis.Redis) -> None:
    plan = mesh(400)
    row = Row(run="r", plan=plan, phase=0, performer=7)
    key = keyspace.done_key("r", "ping")
    connection.setbit(key, plan.bit(399, 398), 1)
    connection.setbit(key, plan.bit(6, 399), 1)
    connection.setbit(key, plan.bit(7, 0), 1)
    connection.setbit(key, plan.bit(7, 399), 1)
    connection.setbit(key, plan.bit(8, 0), 1)
    before = sent(connection)
    pipeline = connection.pipeline(transaction=False)
    row.ask_done(pipeline)
    assert {t for _, t in row.not_done(*pipeline.execute())} == set(range(400)) - {0, 7, 399}
    assert sent(connection) - before < 5_000


def test_an_advance_has_time_for_the_rows_of_a_whole_mesh_at_its_pace(
    connection: redis.Redis,
) -> None:
    rq_jobs.enqueue_advance(connection, "r")
    (job,) = connection.lrange(keyspace.queue_key(keyspace.CONTROL_QUEUE), 0, -1)
    timeout_s = float(connection.hget(keyspace.job_key(job.decode()), "timeout") or 0)
    assert timeout_s > MAX_NODES * (MAX_NODES - 1) / DEFAULTS["results_per_s"]


def test_a_matrix_too_wide_for_a_terminal_is_not_made_into_a_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = make_report(mesh(200))
    monkeypatch.setattr(
        "coordinator.cli.view.matrix_view._cells",
        lambda *_: pytest.fail("40,000 cells were made"),
    )
    assert matrix_view(report.matrices["ping"], Console(width=100))


@pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")
def test_sampled_run_measures_each_node_as_often_as_it_measures(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    names = ["a", "b", "c", "d"]
    with workers(redis_url, connection, tmp_path, names, []):
        path = tmp_path / "out.csv"
        done = cli(redis_url, "run", "--sample", "1", "--count", "1", "--csv", str(path))
        assert done.returncode == 0, done.stderr
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["source"] for row in rows) == Counter(names)
    assert Counter(row["target"] for row in rows) == Counter(names)
