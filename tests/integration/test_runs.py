"""Runs: started once, joined, carried on by anyone, ended whole."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import redis

from coordinator.embedded import EmbeddedServer
from coordinator.mesh import Mesh
from coordinator.runs import advance as advance_module
from coordinator.runs.advance import advance, cancel, missing
from coordinator.runs.follow import follow_run
from coordinator.runs.holds import Hold
from coordinator.runs.row_state import read_rows
from coordinator.runs.runs import read_run, recent, resolve_run
from coordinator.runs.starting import start
from integration.nodes import cli
from integration.rows import beat, outcomes, plan
from worker.model.errors import ConfigError, RedisUnavailable, WireError
from worker.model.measurement import Outcome
from worker.model.options import PingOptions
from worker.model.probe import with_options
from worker.node.registration.heartbeats import Heartbeats
from worker.node.registration.instance import Instance
from worker.publish.outbox import Outbox
from worker.wire import keyspace, liveness, run_record, scripts
from worker.wire.connection import server
from worker.wire.node_record import FarEnd, Node
from worker.wire.registry import read_parts
from worker.wire.room import why_no_room
from worker.wire.rows import Row

pytestmark = pytest.mark.redis


def test_one_job_a_source_is_enqueued(connection: redis.Redis) -> None:
    start(connection, plan(5))
    waiting = [connection.llen(keyspace.queue_key(keyspace.node_queue(f"n{i}"))) for i in range(5)]
    assert waiting == [1] * 5


def test_same_plan_joins_the_open_run(connection: redis.Redis) -> None:
    first, begun = start(connection, plan())
    assert begun == read_run(connection, first)
    assert start(connection, plan()) == (first, None)
    assert recent(connection, 9) == [first]


def test_two_who_start_at_once_start_one(redis_url: str, connection: redis.Redis) -> None:
    barrier, ids = threading.Barrier(8), []

    def trigger() -> None:
        own = server.connect(redis_url)
        barrier.wait()
        ids.append(start(own, plan())[0])

    threads = [threading.Thread(target=trigger) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 1
    assert recent(connection, 9) == ids[:1]


def test_another_run_of_the_same_plan_can_be_forced(connection: redis.Redis) -> None:
    first, _ = start(connection, plan())
    second, begun = start(connection, plan(), join=False)
    assert begun is not None
    assert recent(connection, 9) == [second, first]


def test_ended_run_is_not_joined(connection: redis.Redis) -> None:
    first, _ = start(connection, plan())
    cancel(connection, first)
    assert start(connection, plan())[1]


def test_dead_sources_get_rows_that_say_so_and_the_run_ends(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    advance(connection, run)
    assert outcomes(connection, run) == [Outcome.SOURCE_LOST] * 6
    assert read_run(connection, run).status == "done"
    assert connection.zcard(keyspace.RUNS_OPEN) == 0


def test_sources_that_are_alive_are_waited_for(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    beat(connection, "n0", "n1")
    advance(connection, run)
    assert outcomes(connection, run) == [Outcome.SOURCE_LOST] * 2
    assert read_run(connection, run).is_open
    assert connection.zscore(keyspace.RUNS_OPEN, run) > scripts.redis_seconds(connection)  # type: ignore[operator]  # it is there


def test_dry_run_of_a_single_pair_says_how_long_its_one_test_takes(
    redis_url: str, connection: redis.Redis
) -> None:
    beat(connection, "n0", "n1")
    for place, name in enumerate(("n0", "n1")):
        record = Node(name=name, address=f"127.0.0.{place + 1}", accepts=True).to_fields()
        connection.hset(keyspace.node_key(name), mapping=dict(record))
    asked = ("run", "--dry-run", "--from", "n0", "--to", "n1", "--probe", "throughput", "-t", "6")
    said = cli(redis_url, *asked)
    assert "1 pairs: throughput about 12 s on quick paths, at most 42 s" in said.stdout, said


def heartbeat(connection: redis.Redis, name: str) -> None:
    """Send a real heartbeat of a node that was not heard for long."""
    record = Node(name=name, address="127.0.0.1", since=1.0)
    heartbeats = Heartbeats(Outbox(Path("none")))
    heartbeats.instance = Instance(token="owner-of-it", file="")  # noqa: S106 - of a name
    assert isinstance(heartbeats.send(connection, record, "replace"), list)


def test_nobody_is_lost_while_all_report_to_a_redis_that_was_away(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    beat(connection, "n0", "n1", "n2")
    long_ago = scripts.redis_seconds(connection) - liveness.ALIVE_S - 5
    connection.zadd(keyspace.NODES, dict.fromkeys(("n0", "n1", "n2"), long_ago))
    heartbeat(connection, "n0")
    advance(connection, run)
    assert outcomes(connection, run) == []
    # After the time in which the others could have reported, whoever has not is lost.
    connection.set(keyspace.BACK, long_ago)
    advance(connection, run)
    assert outcomes(connection, run) == [Outcome.SOURCE_LOST] * 4


def test_a_node_that_alone_was_away_gives_the_others_no_time(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    beat(connection, "n0", "n1", "n2")
    connection.zadd(
        keyspace.NODES, {"n2": scripts.redis_seconds(connection) - liveness.ALIVE_S - 5}
    )
    heartbeat(connection, "n0")
    advance(connection, run)
    assert outcomes(connection, run) == [Outcome.SOURCE_LOST] * 2


def test_job_that_vanished_is_enqueued_again(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    beat(connection, "n0", "n1", "n2")
    queue = keyspace.queue_key(keyspace.node_queue("n1"))
    connection.delete(queue)
    advance(connection, run)
    assert connection.llen(queue) == 1
    row = Row(run=run, plan=plan(), phase=0, performer=1)
    assert read_rows(connection, [row])[0].in_queue


def test_run_whose_marks_are_garbage_still_ends(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    beat(connection, "n0", "n1", "n2")
    for name in ("n0", "n1", "n2"):
        connection.hset(keyspace.node_key(name), mapping={"since": "x", "outbox": "nan"})
    for row in range(3):
        garbage = dict.fromkeys(run_record.row_fields(0, row), b"\xff\x00")
        del garbage[run_record.row_fields(0, row).refused]
        connection.hset(keyspace.run_key(run), mapping=garbage)  # type: ignore[arg-type]  # invariant
    advance(connection, run)
    assert outcomes(connection, run) == [Outcome.SOURCE_LOST] * 6
    assert read_run(connection, run).status == "done"


@pytest.mark.parametrize("offset_ms", ["1e300", "-1e15", "1e15"])
def test_clock_that_leads_out_of_the_calendar_holds_no_run_up(
    connection: redis.Redis, offset_ms: str
) -> None:
    run, _ = start(connection, plan())
    clock = {"clock_offset_ms": offset_ms, "clock_offset_uncertainty_ms": "1"}
    connection.hset(keyspace.node_key("n0"), mapping=dict(clock))
    advance(connection, run)
    assert outcomes(connection, run) == [Outcome.SOURCE_LOST] * 6
    assert read_run(connection, run).status == "done"


def test_node_whose_key_holds_no_record_holds_up_neither_a_run_nor_its_end(
    connection: redis.Redis,
) -> None:
    run, _ = start(connection, plan())
    beat(connection, "n1", "n2")
    connection.set(keyspace.node_key("n0"), "no record")
    advance(connection, run)
    assert outcomes(connection, run) == [Outcome.SOURCE_LOST] * 2
    cancel(connection, run)
    assert len(outcomes(connection, run)) == 6
    assert read_parts(connection, ["n0", "n1"], FarEnd).keys() == {"n1"}


@pytest.mark.parametrize(
    "damage",
    [
        *({"plan": b"\xc1"}, {"phase": "x"}, {"created": ""}),
        *({"begun": "9" * 20 + "-1"}, {"created": "nan"}, {"closed": "1e308"}),
    ],
)
def test_run_that_nobody_can_read_is_given_up_and_not_joined(
    connection: redis.Redis, damage: dict[str, bytes | str]
) -> None:
    run, _ = start(connection, plan())
    connection.hset(keyspace.run_key(run), mapping=damage)  # type: ignore[arg-type]  # invariant
    with pytest.raises(WireError):
        read_run(connection, run)
    advance(connection, run)
    assert connection.zcard(keyspace.RUNS_OPEN) == 0
    assert start(connection, plan())[1]


def test_cancel_makes_the_matrix_whole(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    cancel(connection, run)
    assert outcomes(connection, run) == [Outcome.CANCELLED] * 6
    assert read_run(connection, run).status == "cancelled"
    with pytest.raises(ConfigError, match="has ended already"):
        cancel(connection, run)


def test_cancel_that_was_cut_short_is_ended_by_whoever_looks(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    connection.hset(keyspace.run_key(run), "cancel", 1)
    advance(connection, run)
    assert read_run(connection, run).status == "cancelled"
    assert outcomes(connection, run) == [Outcome.CANCELLED] * 6


def test_advance_may_be_called_any_number_of_times(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    for _ in range(3):
        advance(connection, run)
    advance(connection, "20260101T000000000-0000")
    assert len(outcomes(connection, run)) == 6


@pytest.mark.parametrize("probes", [("ping",), ("ping", "tcp")])
def test_phase_whose_results_an_older_copy_has_not_is_not_left(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch, probes: tuple[str, ...]
) -> None:
    run, _ = start(connection, plan(options=with_options(probes)))
    # Who looked at the results before Redis went away acts on the copy that came back.
    monkeypatch.setattr(advance_module, "missing", once(iter([]), missing))
    beat(connection, "n0", "n1", "n2")
    advance(connection, run)
    state = read_run(connection, run)
    assert (state.phase, state.is_open) == (0, True)
    assert connection.zscore(keyspace.RUNS_OPEN, run) is not None


def once(first: Any, then: Any) -> Any:
    """Give one value at the first call, and what a function gives from the second on."""
    values = iter([first])
    return lambda *arguments: next(values, then(*arguments))


def test_advance_from_many_sides_at_once_does_no_harm(
    redis_url: str, connection: redis.Redis
) -> None:
    run, _ = start(connection, plan(8))
    barrier = threading.Barrier(6)

    def carry_on() -> None:
        own = server.connect(redis_url)
        barrier.wait()
        advance(own, run)

    threads = [threading.Thread(target=carry_on) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes(connection, run)) == 56
    assert read_run(connection, run).status == "done"


def test_follower_carries_a_run_on_when_every_node_is_dead(connection: redis.Redis) -> None:
    run, _ = start(connection, plan(2, options={"ping": PingOptions(count=1, wait_s=0.1)}))
    found = [one for update in follow_run(connection, run) for one in update.arrived]
    assert [one.outcome for one in found] == [Outcome.SOURCE_LOST] * 2


def test_run_is_found_by_a_part_of_its_id(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    assert resolve_run(connection, "last") == run
    assert resolve_run(connection, run[-4:]) == run
    with pytest.raises(ConfigError, match="not known"):
        resolve_run(connection, "nope")


def test_run_that_redis_lost_is_told(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    connection.flushall()
    with pytest.raises(ConfigError, match="lost its data"):
        read_run(connection, run)


def test_run_is_not_started_when_the_stream_is_full(connection: redis.Redis) -> None:
    connection.hset(keyspace.LIMITS, "stream_entries", 5)
    for _ in range(5):
        connection.xadd(keyspace.RESULTS, {"v": "1"})
    with pytest.raises(RedisUnavailable, match="ptzmesh collect"):
        start(connection, plan())
    assert recent(connection, 9) == []


def test_run_is_started_when_what_fills_the_stream_is_collected(connection: redis.Redis) -> None:
    connection.hset(keyspace.LIMITS, "stream_entries", 5)
    for _ in range(5):
        connection.xadd(keyspace.RESULTS, {"v": "1"})
    connection.xgroup_create(keyspace.RESULTS, "csv", "$")
    assert start(connection, plan())[1]


def test_run_is_not_started_when_a_follower_holds_what_fills_the_stream(
    connection: redis.Redis,
) -> None:
    connection.hset(keyspace.LIMITS, "stream_entries", 5)
    for _ in range(5):
        connection.xadd(keyspace.RESULTS, {"v": "1"})
    connection.xgroup_create(keyspace.RESULTS, "csv", "$")
    with Hold(connection) as hold:
        hold.keep("0-0")
        with pytest.raises(RedisUnavailable, match="ptzmesh collect"):
            start(connection, plan())
    assert start(connection, plan())[1]


def test_that_there_is_no_room_is_said_by_a_redis_at_its_maxmemory(
    redis_server: EmbeddedServer,
) -> None:
    connection = server.connect(redis_server.url)
    connection.config_set("maxmemory", 1)
    try:
        assert str(why_no_room(connection)) == "Redis is short of memory"
    finally:
        connection.config_set("maxmemory", 0)


def test_run_is_not_started_when_redis_is_short_of_memory(redis_server: EmbeddedServer) -> None:
    connection = server.connect(redis_server.url)
    connection.config_set("maxmemory", connection.info("memory")["used_memory"] + 2_000_000)
    connection.hset(keyspace.LIMITS, "redis_memory_pct", 10)
    with pytest.raises(RedisUnavailable, match="short of memory"):
        start(connection, plan())
    assert recent(connection, 9) == []


def test_no_run_is_started_while_the_nodes_send_more_commands_than_they_may(
    redis_url: str, connection: redis.Redis
) -> None:
    for name in ("n0", "n1"):
        heartbeat(connection, name)
        connection.hset(keyspace.node_key(name), "redis_commands_per_s", "30.0")
    connection.hset(keyspace.LIMITS, "commands_per_s", 59)
    with pytest.raises(RedisUnavailable, match="over their 59"):
        Mesh(redis_url).start(plan(2))
    assert recent(connection, 9) == []
    connection.hset(keyspace.LIMITS, "commands_per_s", 61)
    Mesh(redis_url).start(plan(2))
    assert len(recent(connection, 9)) == 1


def test_nothing_outside_our_keys_is_touched(connection: redis.Redis) -> None:
    connection.set("file_lockers:0", "somebody", ex=36000)
    run, _ = start(connection, plan())
    advance(connection, run)
    ours = ("ptzmesh:", "rq:")
    others = [k for k in connection.scan_iter() if not k.decode().startswith(ours)]
    assert others == [b"file_lockers:0"]
    assert [*missing(connection, read_run(connection, run), 0)] == []
