"""A collector's group: it passes what is on the disk, and publishing trims no more than that."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import redis
from samples import RUN, file_rows, fill, measurement, stream_rows

from coordinator.collect.collector import Collector
from coordinator.collect.csvfile import CsvFile
from coordinator.collect.cursor import Cursor
from coordinator.collect.groups import collectors, default_group, forget
from coordinator.results.stream import Pages
from integration.collecting import last_id, position
from worker.model.errors import ConfigError, PtzmeshError
from worker.publish.outbox import Letter, publish
from worker.wire import keyspace
from worker.wire.room import StreamFull

pytestmark = pytest.mark.redis


def test_only_bad_entries_still_free_the_stream(connection: redis.Redis, csv_path: Path) -> None:
    bad_id = connection.xadd(keyspace.RESULTS, {"v": "none"})
    Collector(connection, csv_path).drain()
    assert (position(connection, csv_path) or "").encode() == bad_id


def test_group_passes_nothing_before_it_is_on_the_disk(
    connection: redis.Redis, csv_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(connection, 3)
    Collector(connection, csv_path).drain()
    before = position(connection, csv_path)
    fill(connection, 3, first=3)

    def fail(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    def fail_later(fd: int) -> None:
        if "open" in opened:
            fail(fd)
        opened.append("open")

    opened: list[str] = []
    monkeypatch.setattr("coordinator.collect.csvfile.os.fsync", fail_later)
    with pytest.raises(PtzmeshError, match="cannot be written: No space left"):
        Collector(connection, csv_path).drain()
    assert position(connection, csv_path) == before
    assert len(file_rows(csv_path)) == 3


def publish_all(connection: redis.Redis, numbers: Iterable[int]) -> int:
    """Publish one by one until the stream is full; give how many went in."""
    done = 0
    for number in numbers:
        try:
            publish(connection, [Letter(number, measurement(number))])
        except StreamFull:
            break
        done += 1
    return done


def test_publishing_trims_only_what_is_on_the_disk(connection: redis.Redis, csv_path: Path) -> None:
    connection.hset(
        keyspace.run_key(RUN), mapping={"plan": "it", "status": "running", "pairs:ping": 5000}
    )
    connection.hset(keyspace.LIMITS, mapping={"stream_entries": 1000})
    made = publish_all(connection, range(5000))
    assert made == 1000  # nobody collects: nothing may go
    seen = stream_rows(connection)
    Collector(connection, csv_path).drain()
    for _ in range(3):
        more = publish_all(connection, range(made, 5000))
        assert 0 < more <= 1000
        made += more
        uncollected = len(stream_rows(connection))
        assert uncollected <= 1000
        Collector(connection, csv_path).drain()
        assert len(file_rows(csv_path)) == made
    assert file_rows(csv_path)[:1000] == seen
    times = [row[0] for row in file_rows(csv_path)]
    assert times == [measurement(n).to_row("")[0] for n in range(made)]


def test_collector_that_is_behind_holds_the_stream_until_it_is_forgotten(
    connection: redis.Redis, csv_path: Path
) -> None:
    connection.hset(
        keyspace.run_key(RUN), mapping={"plan": "it", "status": "running", "pairs:ping": 5000}
    )
    connection.hset(keyspace.LIMITS, mapping={"stream_entries": 500})
    Collector(connection, csv_path.with_name("retired.csv"), group="retired").drain()
    assert publish_all(connection, range(5000)) == 500
    Collector(connection, csv_path).drain()
    assert publish_all(connection, range(500, 5000)) == 0
    forget(connection, "retired")
    assert publish_all(connection, range(500, 5000)) > 0


def test_another_readers_pending_entries_do_not_hold_the_stream(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 3)
    group = default_group(csv_path)
    connection.xgroup_create(keyspace.RESULTS, group, "0")
    connection.xreadgroup(group, "somebody", {keyspace.RESULTS: ">"})
    Collector(connection, csv_path).drain()
    (found,) = collectors(connection)
    assert (found.pending, found.position) == (0, last_id(csv_path))
    assert len(file_rows(csv_path)) == 3


def test_collectors_are_listed_and_forgotten(connection: redis.Redis, csv_path: Path) -> None:
    fill(connection, 5)
    Collector(connection, csv_path).drain()
    Collector(connection, csv_path.with_name("b.csv"), group="mine").drain()
    fill(connection, 2, first=5)
    groups = {group.name: group for group in collectors(connection)}
    assert set(groups) == {default_group(csv_path), "mine"}
    assert groups["mine"].pending == 0
    assert groups["mine"].behind_s is not None
    forget(connection, "mine")
    assert [group.name for group in collectors(connection)] == [default_group(csv_path)]
    with pytest.raises(ConfigError, match="known: csv:"):
        forget(connection, "mine")


def test_lag_is_told_where_redis_can_tell_it(connection: redis.Redis, csv_path: Path) -> None:
    fill(connection, 1500)
    connection.xgroup_create(keyspace.RESULTS, default_group(csv_path), "0")
    if collectors(connection)[0].lag is None:
        pytest.skip("this server does not know the lag of a group")
    Collector(connection, csv_path).drain()
    assert collectors(connection)[0].lag == 0
    fill(connection, 30, first=1500)
    assert collectors(connection)[0].lag == 30
    with CsvFile(csv_path) as file:
        cursor = Cursor(connection, default_group(csv_path), file)
        cursor.begin()
        entries = Pages(connection).after(cursor.position)
        cursor.passed(entries[-1], len(entries))
    assert collectors(connection)[0].lag == 30 - len(entries)


def test_group_name_with_a_space_is_refused(connection: redis.Redis, csv_path: Path) -> None:
    with pytest.raises(ConfigError, match="printable"):
        Collector(connection, csv_path, group="a b")
