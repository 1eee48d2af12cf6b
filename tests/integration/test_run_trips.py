"""How many round trips it takes to carry a run on: on a long way to Redis, its time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from counting_proxy import CountingProxy, counting_proxy, open_connection

from coordinator.runs.advance import advance
from coordinator.runs.runs import read_run
from coordinator.runs.starting import start
from integration.nodes import workers
from integration.rows import beat, plan
from worker.model.measurement import Outcome
from worker.model.names import RunId
from worker.model.options import PingOptions, RedisOptions
from worker.node.supervisor import SCRIPTS
from worker.publish.outbox import Letter, publish
from worker.wire import keyspace, run_record, scripts
from worker.wire.rows import Row, load_row

pytestmark = pytest.mark.redis


@pytest.fixture
def proxy(redis_url: str) -> Iterator[CountingProxy]:
    with counting_proxy(redis_url) as made:
        yield made


@pytest.fixture
def far(proxy: CountingProxy) -> Iterator[redis.Redis]:
    """A connection by that way, which is open."""
    with open_connection(proxy) as connection:
        yield connection


def begun(connection: redis.Redis) -> RunId:
    """Start a run of two phases and publish all of the first."""
    options = {"ping": PingOptions(), "redis": RedisOptions()}
    run, _ = start(connection, plan(options=options), join=False)
    complete(connection, run, 0)
    return run


def complete(connection: redis.Redis, run: RunId, phase: int) -> Row:
    made = [load_row(connection, run, phase, performer) for performer in range(3)]
    rows = [row for row in made if row is not None]
    for row in rows:
        found = [
            row.finding(pair, Outcome.OK, "")
            for pair in row.plan.pairs_of(row.probe, row.performer)
        ]
        publish(connection, [Letter(row.bit_of(one), one) for one in found])
    return rows[-1]


@pytest.mark.parametrize("is_known", [False, True])
def test_phase_ends_in_three_round_trips_or_in_one_for_who_completes_it(
    connection: redis.Redis, far: redis.Redis, proxy: CountingProxy, is_known: bool
) -> None:
    beat(connection, "n0", "n1", "n2")
    advance(connection, begun(connection))  # the server gets the script
    run = begun(connection)
    row = load_row(connection, run, 0, 2) if is_known else None
    proxy.trips = 0
    advance(far, run, row=row)
    assert proxy.trips == (1 if is_known else 3)
    assert read_run(connection, run).phase == 1
    for name in ("n0", "n1", "n2"):
        assert connection.llen(keyspace.queue_key(keyspace.node_queue(name))) >= 3
    row = complete(connection, run, 1)
    advance(far, run, row=row if is_known else None)
    assert read_run(connection, run).status == run_record.IS_DONE


def test_run_that_was_cancelled_is_ended_by_who_completes_its_phase(
    connection: redis.Redis,
) -> None:
    beat(connection, "n0", "n1", "n2")
    run = begun(connection)
    connection.hset(keyspace.run_key(run), run_record.CANCEL, 1)
    advance(connection, run, row=load_row(connection, run, 0, 2))
    state = read_run(connection, run)
    assert (state.status, state.phase, state.published) == (run_record.IS_CANCELLED, 0, 9)


def test_phase_that_another_has_begun_is_begun_once(connection: redis.Redis) -> None:
    beat(connection, "n0", "n1", "n2")
    run = begun(connection)
    row = load_row(connection, run, 0, 2)
    queue = keyspace.queue_key(keyspace.node_queue("n0"))
    for _ in range(2):
        advance(connection, run, row=row)
        assert connection.llen(queue) == 2  # one of each phase
    assert read_run(connection, run).phase == 1


def test_results_that_an_older_copy_of_redis_lacks_are_asked_for_again(
    connection: redis.Redis,
) -> None:
    """A bitmap whose run has fewer results than it has bits is as old as it says to be."""
    beat(connection, "n0", "n1", "n2")
    run = begun(connection)
    row = load_row(connection, run, 0, 2)
    assert row is not None
    connection.setbit(keyspace.done_key(run, "ping"), row.plan.bit(0, 1), 0)
    field = run_record.count_field(run_record.DONE, "ping")
    connection.hincrby(keyspace.run_key(run), field, -1)
    advance(connection, run, row=row)
    assert read_run(connection, run).phase == 0
    # Counts that are damaged hold up nobody: then the bits count.
    connection.setbit(keyspace.done_key(run, "ping"), row.plan.bit(0, 1), 1)
    advance(connection, run, row=row)
    assert read_run(connection, run).phase == 1


def test_node_that_has_started_has_given_redis_the_scripts_of_its_jobs(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    with workers(redis_url, connection, tmp_path, ["a"]):
        digests = [scripts.with_digest(names, before)[1] for names, before in SCRIPTS]
        assert all(connection.script_exists(*digests))
