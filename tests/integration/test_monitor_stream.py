"""Records reach the stream once, in order, whatever Redis does meanwhile."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import redis
from samples import fill
from waiting import wait_until

from coordinator.collect.collector import Collector
from coordinator.embedded import EmbeddedServer
from coordinator.results import results
from worker.model.measurement import Measurement
from worker.monitor import guard, process
from worker.monitor.records import link, metrics_csv
from worker.monitor.records import recorder as recorder_module
from worker.monitor.records.link import BATCH, add_records
from worker.monitor.records.record import PING, Entry, record
from worker.monitor.records.recorder import Recorder
from worker.monitor.settings import MonitorSettings
from worker.wire import keyspace
from worker.wire.room import StreamFull

pytestmark = pytest.mark.redis

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_logged_at", {})
    monkeypatch.setattr(recorder_module, "LINGER_S", 0.01)
    monkeypatch.setattr(recorder_module, "PACE_S", 0.001)
    monkeypatch.setattr(recorder_module, "RETRY_S", 0.05)
    monkeypatch.setattr(recorder_module, "MAX_RETRY_S", 0.1)
    monkeypatch.setattr(process, "_process", process._Process())


@pytest.fixture
def recorders() -> Iterator[list[Recorder]]:
    """Recorders that the test made, which end with it."""
    made: list[Recorder] = []
    yield made
    for one in made:
        one.close(5.0)


def make(recorders: list[Recorder], url: str, *, most: int = 10_000) -> Recorder:
    recorders.append(Recorder(MonitorSettings(source="cam-7", redis_url=url), max_records=most))
    return recorders[-1]


def ping(number: int) -> Measurement:
    return record(
        probe=PING, target="hub", address="10.0.0.1", started_at=AT, latency_ms=float(number)
    )


def entries(first: int, count: int) -> list[Entry]:
    return [Entry(number, ping(number)) for number in range(first, first + count)]


def published(connection: redis.Redis) -> list[Measurement]:
    return [measurement for _, measurement in results.read(connection)]


def numbers(connection: redis.Redis) -> list[float | None]:
    return [measurement.latency_ms for measurement in published(connection)]


def test_what_is_sent_again_is_not_added_again(connection: redis.Redis) -> None:
    assert add_records(connection, "abc", entries(1, 5)) == 5
    assert add_records(connection, "abc", entries(1, 5)) == 0
    assert add_records(connection, "abc", entries(3, 5)) == 2
    assert add_records(connection, "other", entries(1, 2)) == 2
    assert numbers(connection) == [1, 2, 3, 4, 5, 6, 7, 1, 2]
    assert 0 < connection.ttl(keyspace.sequence_key("abc")) <= 7 * 24 * 3600


def test_a_full_stream_takes_nothing_and_gives_no_locker_away(connection: redis.Redis) -> None:
    fill(connection, 50)
    connection.hset(keyspace.LIMITS, "stream_entries", 50)
    with pytest.raises(StreamFull):
        add_records(connection, "abc", entries(1, 5))
    assert connection.xlen(keyspace.RESULTS) == 50
    assert not connection.exists(keyspace.sequence_key("abc"))
    connection.hset(keyspace.LIMITS, mapping={"stream_entries": 1000, "stream_bytes": 100})
    with pytest.raises(StreamFull):
        add_records(connection, "abc", entries(1, 5))


def test_what_a_collector_has_makes_room(connection: redis.Redis, tmp_path: Path) -> None:
    fill(connection, 1000)
    connection.hset(keyspace.LIMITS, "stream_entries", 1000)
    with pytest.raises(StreamFull):
        add_records(connection, "abc", entries(1, 5))
    Collector(connection, tmp_path / "all.csv").drain()
    assert add_records(connection, "abc", entries(1, 5)) == 5
    Collector(connection, tmp_path / "all.csv").drain()
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + 1000 + 5


def test_a_call_of_the_script_is_short(connection: redis.Redis) -> None:
    many = [Entry(n, ping(n)) for n in range(1, BATCH * 20 + 1)]
    took_us = []
    for start in range(0, len(many), BATCH):
        connection.config_resetstat()
        assert add_records(connection, "abc", many[start : start + BATCH]) == BATCH
        took_us.append(connection.info("commandstats")["cmdstat_evalsha"]["usec"])
    # The quickest: whatever else this machine does can only make a call longer.
    assert min(took_us) < 1000


def test_records_of_many_threads_come_once(
    recorders: list[Recorder], connection: redis.Redis, redis_url: str
) -> None:
    made = make(recorders, redis_url)

    def work(first: int) -> None:
        for number in range(first, first + 100):
            made.add(ping(number))

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made.publish_now(30)
    found = published(connection)
    assert len(found) == len({m.latency_ms for m in found}) == 500
    assert {(m.source, m.run) for m in found} == {("cam-7", f"monitor-{made.id}")}
    assert len({m.started_at for m in found}) == 500


def test_lost_answers_double_nothing(
    recorders: list[Recorder],
    connection: redis.Redis,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = itertools.count(1)

    def lossy(*arguments: Any) -> int:
        """Lose the answer to every second call: the records are in, and nobody knows."""
        added = add_records(*arguments)
        if next(calls) % 2:
            raise redis.ConnectionError("the answer was lost")
        return added

    monkeypatch.setattr(link, "add_records", lossy)
    made = make(recorders, redis_url)
    for number in range(100):
        made.add(ping(number))
    assert made.publish_now(30)
    assert numbers(connection) == list(range(100))
    assert next(calls) > 20


def test_a_redis_that_is_away_is_one_log_line_and_loses_nothing(
    recorders: list[Recorder], redis_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    made = make(recorders, redis_server.url)
    made.add(ping(0))
    assert made.publish_now(30)
    redis_server.kill()
    for number in range(1, 30):
        made.add(ping(number))
    wait_until(lambda: "kept in memory" in caplog.text, "it says that records are kept")
    assert not made.publish_now(0.5)
    redis_server.start()
    assert made.publish_now(60)
    with redis.Redis.from_url(redis_server.url) as connection:
        assert numbers(connection)[-29:] == list(range(1, 30))
    assert caplog.text.count("kept in memory") == 1


def test_a_redis_that_never_was_is_one_log_line(
    recorders: list[Recorder], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"unix://:hunter2@{tmp_path}/none.sock"
    made = make(recorders, url, most=50)
    for number in range(500):
        made.add(ping(number))
    wait_until(
        lambda: "has no socket of that name" in caplog.text, "it says that the socket is not there"
    )
    assert (len(made._for_csv), len(made._for_stream)) == (50, 50)
    assert "hunter2" not in caplog.text
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 2  # that it is away, and that the oldest go


@pytest.mark.parametrize("url", ["http://hub", "redis://hub:port"])
def test_a_url_that_is_none_is_a_log_line(
    recorders: list[Recorder], url: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = make(recorders, url)
    made.add(ping(0))
    wait_until(lambda: "not published" in caplog.text, "it says that a record is not published")


def test_a_record_that_cannot_be_encoded_does_not_hold_up_the_others(
    recorders: list[Recorder], connection: redis.Redis, redis_url: str
) -> None:
    made = make(recorders, redis_url)
    made.add(record(probe=PING, target="hub", detail={"odd": object()}))
    assert made.publish_now(30)
    made.add(ping(1))
    assert made.publish_now(30)
    assert numbers(connection) == [1]


def test_what_was_added_before_the_end_is_published_however_late_the_thread_comes(
    recorders: list[Recorder],
    connection: redis.Redis,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held_up, work, publish = threading.Event(), Recorder._work, Recorder._publish

    def begin_late(self: Recorder) -> None:
        held_up.wait(60)
        work(self)

    def look_late(self: Recorder) -> bool:
        sent = publish(self)
        held_up.wait(60)
        return sent

    monkeypatch.setattr(Recorder, "_work", begin_late)
    late_begin = make(recorders, redis_url)
    late_begin.add(ping(1))
    monkeypatch.setattr(Recorder, "_work", work)
    monkeypatch.setattr(Recorder, "_publish", look_late)
    late_look = make(recorders, redis_url)
    late_look.add(ping(2))
    wait_until(lambda: not late_look._for_stream, "nothing waits any more")
    late_look.add(ping(3))
    for made in (late_begin, late_look):
        made.close(0.0)
    held_up.set()
    wait_until(lambda: sorted(numbers(connection)) == [1, 2, 3], "all three are in the stream")


def test_what_comes_at_the_end_is_in_the_file_and_in_the_stream_or_in_neither(
    recorders: list[Recorder],
    connection: redis.Redis,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, append = make(recorders, redis_url), metrics_csv.append
    made.csv_target = tmp_path / "m.csv"
    made.add(ping(1))

    def meanwhile(path: Path, measurements: list[Measurement]) -> int:
        written = append(path, measurements)
        made.add(ping(2))
        return written

    monkeypatch.setattr(metrics_csv, "append", meanwhile)
    made.close(60.0)
    assert numbers(connection) == [1]
    assert len((tmp_path / "m.csv").read_text().splitlines()) == 1 + 1


def child(url: str) -> None:
    process.configure(redis_url=url, source="child")
    for number in range(20):
        process.recorder().add(ping(number))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # Python 3.12 and newer
def test_a_child_of_multiprocessing_publishes_its_own_before_it_ends(
    connection: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "EXIT_DEADLINE_S", 60.0)
    process.configure(redis_url=redis_url, source="parent")
    process.recorder().add(ping(7))
    started = multiprocessing.get_context("fork").Process(target=child, args=(redis_url,))
    started.start()
    started.join(120)
    assert process.recorder().publish_now(30)
    found = published(connection)
    assert sorted(m.source for m in found) == ["child"] * 20 + ["parent"]
    process.recorder().close(5.0)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # Python 3.12 and newer
def test_a_fork_at_any_moment_neither_hangs_nor_doubles(
    connection: redis.Redis, redis_url: str
) -> None:
    process.configure(redis_url=redis_url, source="parent")
    for number in range(40):
        process.recorder().add(ping(number))
        pid = os.fork()
        if pid == 0:
            process.recorder().add(ping(1000 + number))
            os._exit(0 if process.recorder().publish_now(60) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert process.recorder().publish_now(30)
    assert sorted(n for n in numbers(connection) if n is not None) == [
        *range(40),
        *range(1000, 1040),
    ]
    process.recorder().close(5.0)
