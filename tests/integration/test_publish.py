"""A pair is in the stream once, whatever is sent again; a full stream pushes back."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType

import pytest
import redis
from samples import RUN, ping_statistics
from waiting import wait_until

from coordinator.embedded import EmbeddedServer
from coordinator.results.stream import stream_position
from coordinator.runs.runs import read_run
from coordinator.runs.starting import start
from worker.model.measurement import Measurement, Outcome
from worker.model.plan import Plan, PlannedNode
from worker.publish.outbox import BATCH, BATCH_BYTES, Letter, Outbox, publish
from worker.publish.publisher import Publisher
from worker.publish.source_clock import SourceClock
from worker.wire import keyspace, scripts
from worker.wire.connection import server
from worker.wire.room import StreamFull
from worker.wire.rows import Row

pytestmark = pytest.mark.redis

SIZE = 6


def plan() -> Plan:
    nodes = tuple(PlannedNode(name=f"n{i}", address=f"127.0.0.{i + 1}") for i in range(SIZE))
    return Plan(nodes=nodes, sources=tuple(range(SIZE)), targets=tuple(range(SIZE)))


def letters(run: str, outcome: Outcome = Outcome.OK) -> list[Letter]:
    made = plan()
    return [
        Letter(
            made.bit(s, t),
            Measurement(
                run=run,
                probe="ping",
                source=f"n{s}",
                target=f"n{t}",
                address=f"127.0.0.{t + 1}",
                started_at=datetime.now(timezone.utc),
                outcome=outcome,
                latency_ms=1.5,
                detail=ping_statistics([1.0, 2.0, None] * 20),
            ),
        )
        for s, t in made.node_pairs()
    ]


def test_a_pair_is_published_once(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    for _ in range(3):
        publish(connection, letters(run))
    assert connection.xlen(keyspace.RESULTS) == 30
    assert read_run(connection, run).published == 30


def test_what_is_published_is_what_was_measured(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    sent = [*letters(run)[:12], *letters(run, Outcome.NO_REPLY)[12:]]
    publish(connection, sent)
    for (_, entry), letter in zip(connection.xrange(keyspace.RESULTS), sent, strict=True):
        fields = letter.measurement.to_fields()
        assert list(entry) == [name.encode() for name in fields]
        assert [*entry.values()] == [
            x if isinstance(x, bytes) else x.encode() for x in fields.values()
        ]
    state = read_run(connection, run)
    assert (state.done, state.ok) == ({"ping": 30}, {"ping": 12})


def test_results_of_many_samples_are_sent_in_smaller_batches(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    long = ping_statistics([0.5 + number / 1e6 for number in range(2000)])
    sent = [replace(x, measurement=replace(x.measurement, detail=long)) for x in letters(run)]
    connection.config_resetstat()
    publish(connection, sent)
    calls = connection.info("commandstats")["cmdstat_evalsha"]["calls"]
    bytes_ = sum(len(x.measurement.to_fields()["detail"]) for x in sent)
    assert calls >= bytes_ / BATCH_BYTES > len(sent) / BATCH
    assert connection.xlen(keyspace.RESULTS) == 30


def test_only_the_call_that_adds_the_last_pair_completes_the_phase(
    connection: redis.Redis,
) -> None:
    run, _ = start(connection, plan())
    all_ = letters(run)
    assert not publish(connection, all_[:-1])
    assert publish(connection, all_)
    assert not publish(connection, all_)


def test_results_of_a_run_that_is_gone_are_not_put_into_the_stream(
    connection: redis.Redis,
) -> None:
    assert not publish(connection, letters("20260101T000000000-0000"))
    assert connection.xlen(keyspace.RESULTS) == 0


def test_full_stream_refuses_and_drops_nothing(connection: redis.Redis) -> None:
    connection.hset(keyspace.LIMITS, "stream_entries", BATCH)
    run, _ = start(connection, plan())
    with pytest.raises(StreamFull) as caught:
        publish(connection, letters(run))
    assert caught.value.raised_to == "--stream-entries N"
    assert connection.xlen(keyspace.RESULTS) == BATCH
    assert connection.xrange(keyspace.RESULTS, count=1)[0][1][b"target"] == b"n1"


def test_full_stream_of_bytes_refuses_too(connection: redis.Redis) -> None:
    connection.hset(keyspace.LIMITS, "stream_bytes", 3000)
    run, _ = start(connection, plan())
    with pytest.raises(StreamFull) as caught:
        publish(connection, letters(run))
    assert caught.value.raised_to == "--stream-bytes N"


@pytest.mark.parametrize(("limit_pct", "raised_to"), [(1, "--redis-memory-pct 80"), (80, None)])
def test_redis_that_is_full_is_no_matter_of_a_limit_unless_that_is_low(
    connection: redis.Redis, limit_pct: int, raised_to: str | None
) -> None:
    run, _ = start(connection, plan())
    connection.hset(keyspace.LIMITS, "redis_memory_pct", limit_pct)
    connection.config_set("maxmemory", connection.info("memory")["used_memory"] * 100 // 90)
    try:
        with pytest.raises(StreamFull) as caught:
            publish(connection, letters(run))
    finally:
        connection.config_set("maxmemory", 0)
    assert caught.value.raised_to == raised_to


def test_results_are_not_added_faster_than_the_mesh_may(connection: redis.Redis) -> None:
    connection.hset(keyspace.LIMITS, "results_per_s", 100)
    run, _ = start(connection, plan())
    begun = time.monotonic()
    publish(connection, letters(run))
    publish(connection, letters(run))  # what is in already takes its turn, too
    # 60 results, of which the first batch and those of a fifth of a second need not wait
    assert time.monotonic() - begun > 0.25
    assert connection.xlen(keyspace.RESULTS) == 30


def test_those_who_wait_for_their_turn_share_the_pace(
    redis_url: str, connection: redis.Redis
) -> None:
    connection.hset(keyspace.LIMITS, "results_per_s", 200)
    runs = [start(connection, plan(), join=False)[0] for _ in range(6)]
    begun = time.monotonic()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda run: publish(server.connect(redis_url), letters(run)), runs))
    assert time.monotonic() - begun > 180 / 200 - 0.3
    assert connection.xlen(keyspace.RESULTS) == 180


def test_pace_that_was_kept_by_a_clock_of_tomorrow_stops_nobody(connection: redis.Redis) -> None:
    connection.hset(keyspace.PACE, "next", scripts.redis_seconds(connection) + 86400)
    run, _ = start(connection, plan())
    begun = time.monotonic()
    publish(connection, letters(run))
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("junk", ["nan", "inf", "-inf", "soon", ""])
def test_pace_that_is_no_number_stops_nobody(connection: redis.Redis, junk: str) -> None:
    run, _ = start(connection, plan())
    connection.hset(keyspace.PACE, mapping=dict.fromkeys(("next", "looked", "tight"), junk))
    connection.hset(keyspace.LIMITS, "results_per_s", junk)
    publish(connection, letters(run))
    assert connection.xlen(keyspace.RESULTS) == len(letters(run))


def test_redis_that_is_short_of_memory_gets_no_results_until_there_is_room(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    connection = server.connect(redis_server.url)
    run, _ = start(connection, plan())
    connection.set("file_lockers:1", "x" * 4_000_000)
    used = connection.info("memory")["used_memory"]
    connection.config_set("maxmemory", int(used / 0.9))  # over our 80 %, and far from full
    outbox = Outbox(tmp_path / "n.outbox")
    assert not outbox.post(connection, letters(run))
    assert connection.xlen(keyspace.RESULTS) == 0
    assert connection.set("file_lockers:2", "me", nx=True, ex=9)  # lockers feel nothing
    connection.delete("file_lockers:1")
    wait_until(lambda: outbox.resend(connection) == [run], "it is published")
    assert connection.xlen(keyspace.RESULTS) == 30


class TimeIsUpError(Exception):
    """What RQ raises in a job whose time is up."""


def raise_time_is_up(_number: int, _frame: FrameType | None) -> None:
    raise TimeIsUpError


def test_job_whose_time_is_up_keeps_what_waits_for_its_turn(
    connection: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second batch has its turn after 3 s, the third after 6.
    monkeypatch.setattr("worker.publish.publisher.BATCH", 10)
    connection.hset(keyspace.LIMITS, "results_per_s", 3)
    run, _ = start(connection, plan())
    all_ = letters(run)
    outbox = Outbox(tmp_path / "n.outbox")
    row = Row(run=run, plan=plan(), phase=0, performer=0)
    publisher = Publisher(connection, outbox, row, SourceClock(connection, "n0", {}))
    before = signal.signal(signal.SIGALRM, raise_time_is_up)
    try:
        with pytest.raises(TimeIsUpError), publisher:  # noqa: PT012 - it is raised at the end
            for one in all_:
                publisher.put(one.measurement)
            signal.setitimer(signal.ITIMER_REAL, 0.5)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert connection.xlen(keyspace.RESULTS) < 30
    connection.hdel(keyspace.LIMITS, "results_per_s")
    connection.delete(keyspace.PACE)
    assert outbox.resend(connection) == [run]
    assert connection.xlen(keyspace.RESULTS) == 30


def test_outbox_that_is_long_is_sent_in_turns(
    connection: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = start(connection, plan())
    outbox = Outbox(tmp_path / "n.outbox")
    outbox.keep(letters(run))
    monkeypatch.setattr("worker.publish.outbox.RESEND_S", 0.0)
    connection.hset(keyspace.LIMITS, "results_per_s", 30)
    outbox.resend(connection)
    assert outbox.is_behind
    assert connection.xlen(keyspace.RESULTS) < 30
    monkeypatch.undo()
    outbox.resend(connection)
    assert not outbox.is_behind
    assert connection.xlen(keyspace.RESULTS) == 30


def test_outbox_on_a_disk_that_takes_nothing_more_is_sent_all_the_same(
    connection: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = start(connection, plan())
    outbox = Outbox(tmp_path / "n.outbox")
    outbox.keep(letters(run))
    in_the_way = outbox.path.with_suffix(".new")
    in_the_way.mkdir()
    monkeypatch.setattr("worker.publish.outbox.RESEND_S", 0.0)
    outbox.resend(connection)
    monkeypatch.undo()
    assert outbox.resend(connection) == [run]
    assert outbox.waiting_bytes() > 0
    in_the_way.rmdir()
    outbox.resend(connection)
    assert outbox.waiting_bytes() == 0
    assert connection.xlen(keyspace.RESULTS) == 30


def test_only_what_every_collector_has_is_trimmed(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    entry = letters(run)[0].measurement.to_fields()
    for _ in range(500):
        connection.xadd(keyspace.RESULTS, entry)  # type: ignore[arg-type]  # redis-py's dict is invariant
    ids = [stream_id for stream_id, _ in connection.xrange(keyspace.RESULTS)]
    connection.xgroup_create(keyspace.RESULTS, "fast", ids[-1])
    connection.xgroup_create(keyspace.RESULTS, "slow", ids[249])
    connection.hset(keyspace.LIMITS, "stream_entries", 490)
    publish(connection, letters(run)[:1])
    left = [stream_position(stream_id) for stream_id, _ in connection.xrange(keyspace.RESULTS)]
    assert left[0] <= stream_position(ids[249])  # nothing that the slow one has not got
    assert left[0] > stream_position(ids[0])  # and yet there is room again
    assert left[-1] > stream_position(ids[-1])


def test_pending_entries_are_not_trimmed(connection: redis.Redis) -> None:
    run, _ = start(connection, plan())
    entry = letters(run)[0].measurement.to_fields()
    for _ in range(300):
        connection.xadd(keyspace.RESULTS, entry)  # type: ignore[arg-type]  # redis-py's dict is invariant
    connection.xgroup_create(keyspace.RESULTS, "reads", "0")
    connection.xreadgroup("reads", "me", {keyspace.RESULTS: ">"}, count=300)
    connection.hset(keyspace.LIMITS, "stream_entries", 290)
    with pytest.raises(StreamFull):
        publish(connection, letters(run)[:1])
    assert connection.xlen(keyspace.RESULTS) == 300


def test_outbox_keeps_what_a_full_stream_refused_and_sends_it_once(
    connection: redis.Redis, tmp_path: Path
) -> None:
    connection.hset(keyspace.LIMITS, "stream_entries", 1)
    run, _ = start(connection, plan())
    outbox = Outbox(tmp_path / "n.outbox")
    outbox.post(connection, letters(run))
    assert connection.xlen(keyspace.RESULTS) == BATCH  # the first found room
    connection.hdel(keyspace.LIMITS, "stream_entries")
    assert outbox.resend(connection) == [run]
    assert outbox.resend(connection) == []
    assert connection.xlen(keyspace.RESULTS) == 30
    assert outbox.waiting_bytes() == 0


def test_outbox_outlives_a_redis_that_dies(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    connection = server.connect(redis_server.url)
    run, _ = start(connection, plan())
    connection.bgrewriteaof()
    outbox = Outbox(tmp_path / "n.outbox")
    outbox.post(connection, letters(run)[:5])
    redis_server.stop()
    assert not outbox.post(connection, letters(run))
    assert outbox.resend(connection) == []
    redis_server.start()
    assert outbox.resend(connection) == [run]
    assert connection.xlen(keyspace.RESULTS) == 30


def test_torn_outbox_gives_what_was_whole(connection: redis.Redis, tmp_path: Path) -> None:
    run, _ = start(connection, plan())
    connection.hset(keyspace.LIMITS, "stream_entries", 0)
    outbox = Outbox(tmp_path / "n.outbox")
    outbox.post(connection, letters(run)[:3])
    outbox.path.write_bytes(outbox.path.read_bytes()[:-7])
    connection.hdel(keyspace.LIMITS, "stream_entries")
    outbox.resend(connection)
    assert connection.xlen(keyspace.RESULTS) == 2


def test_outbox_over_its_share_gives_up_samples_before_results(
    connection: redis.Redis, tmp_path: Path
) -> None:
    run, _ = start(connection, plan())
    connection.hset(keyspace.LIMITS, "stream_entries", 0)
    outbox = Outbox(tmp_path / "n.outbox", max_bytes=12_000)
    for letter in letters(run):
        outbox.post(connection, [letter])
    connection.hdel(keyspace.LIMITS, "stream_entries")
    outbox.resend(connection)
    kept = [Measurement.from_fields(fields) for _, fields in connection.xrange(keyspace.RESULTS)]
    assert len(kept) == 30
    assert not kept[0].detail.rtts_ms
    assert kept[-1].detail.rtts_ms
    assert all(one.detail.sent == 60 for one in kept)


def test_outbox_over_its_share_keeps_series_that_take_no_more_than_what_follows_from_them(
    tmp_path: Path,
) -> None:
    short = replace(letters(RUN)[0].measurement, detail=ping_statistics([1.0, 2.0, None]))
    outbox = Outbox(tmp_path / "n.outbox", max_bytes=1000)
    for bit in range(6):
        outbox.keep([Letter(bit, short)])
    assert outbox.waiting_bytes() > outbox.max_bytes
    kept = [letter.measurement for letter in outbox._waiting() or ()]
    assert len(kept) >= 5
    assert {one.detail.rtts_ms for one in kept} == {(1.0, 2.0, None)}
