"""What `advance` does with a row whose process is gone for a while, or came back."""

from __future__ import annotations

import pytest
import redis

from coordinator.embedded import EmbeddedServer
from coordinator.runs.advance import advance
from coordinator.runs.row_state import read_rows
from coordinator.runs.starting import start
from integration.rows import beat, outcomes, plan
from worker.wire import keyspace, liveness, run_record, scripts
from worker.wire.connection import server
from worker.wire.rows import Row, note_begun

pytestmark = pytest.mark.redis

OWN = keyspace.queue_key(keyspace.node_queue("n0"))
UNSERVED = run_record.row_fields(0, 0).unserved


def started(connection: redis.Redis) -> tuple[str, Row]:
    beat(connection, "n0", "n1", "n2")
    run, _ = start(connection, plan())
    return run, Row(run=run, plan=plan(), phase=0, performer=0)


def prober_is_gone(connection: redis.Redis) -> None:
    connection.delete("rq:worker:n0")


def test_a_row_of_a_source_that_restarted_is_enqueued_once_however_long_it_waits(
    connection: redis.Redis,
) -> None:
    run, row = started(connection)
    connection.delete(OWN)
    note_begun(connection, row, scripts.redis_seconds(connection))
    now = scripts.redis_seconds(connection)
    connection.hset(keyspace.node_key("n0"), "since", repr(now + 1))
    for _ in range(12):
        advance(connection, run)
    assert connection.llen(OWN) == 1
    (state,) = read_rows(connection, [row])
    assert (state.attempts, state.begun, state.in_queue) == (2, False, True)
    assert outcomes(connection, run) == []


def test_a_prober_that_is_gone_for_a_moment_now_and_then_is_waited_for(
    connection: redis.Redis,
) -> None:
    run, _ = started(connection)
    prober_is_gone(connection)
    advance(connection, run)
    long_ago = scripts.redis_seconds(connection) - liveness.ALIVE_S - 1
    assert connection.hset(keyspace.run_key(run), UNSERVED, repr(long_ago)) == 0  # it is marked
    beat(connection, "n0")
    advance(connection, run)
    prober_is_gone(connection)
    advance(connection, run)
    assert outcomes(connection, run) == []


def test_a_prober_that_stays_away_is_not(connection: redis.Redis) -> None:
    run, _ = started(connection)
    prober_is_gone(connection)
    long_ago = scripts.redis_seconds(connection) - liveness.ALIVE_S - 1
    connection.hset(keyspace.run_key(run), UNSERVED, repr(long_ago))
    advance(connection, run)
    assert len(outcomes(connection, run)) == 2


def test_a_row_whose_beginning_redis_could_not_note_is_measured_all_the_same(
    redis_server: EmbeddedServer,
) -> None:
    with server.connect(redis_server.url) as connection:
        _, row = started(connection)
        connection.config_set("maxmemory", 1)
        note_begun(connection, row, 1.0)
        assert connection.hget(keyspace.run_key(row.run), row.fields.started) is None


def test_what_is_noted_of_a_run_that_redis_lost_is_not_kept_for_ever(
    connection: redis.Redis,
) -> None:
    run, row = started(connection)
    connection.flushall()
    run_record.note(connection, run, run_record.rtt_field(row.performer), b"late")
    assert 0 < connection.ttl(keyspace.run_key(run)) <= run_record.RUN_TTL_S


def test_a_node_that_is_only_a_target_has_no_sweep_and_one_that_it_gets_all_the_same_is_empty(
    connection: redis.Redis,
) -> None:
    beat(connection, "n0", "n1", "n2")
    one_target = plan(targets=(1,))
    run, _ = start(connection, one_target)
    queued = [connection.llen(keyspace.queue_key(keyspace.node_queue(f"n{i}"))) for i in range(3)]
    assert queued == [1, 0, 1]
    assert not Row(run=run, plan=one_target, phase=0, performer=1).bits
