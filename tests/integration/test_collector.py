"""The collector: each result is one row, whatever is killed, full, gone or in the way."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import redis
from samples import RUN, fields_of, file_rows, fill, measurement, stream_rows
from waiting import wait_until

from coordinator.collect.collector import Collector
from coordinator.collect.csvfile import HEADER, CsvFile
from coordinator.collect.cursor import Place
from coordinator.collect.groups import collectors, default_group, forget, group_position
from coordinator.embedded import EmbeddedServer
from coordinator.results.stream import START, Pages
from coordinator.results.stream import last_id as newest
from integration.nodes import cli
from worker.model.errors import ConfigError, PtzmeshError
from worker.model.measurement import CSV_COLUMNS
from worker.publish.outbox import Letter, publish
from worker.wire import keyspace
from worker.wire.connection.server import connect
from worker.wire.room import StreamFull

pytestmark = pytest.mark.redis

FOLLOW = """
import pathlib, sys
from coordinator.collect.collector import Collector
from worker.wire.connection import server
Collector(server.connect(sys.argv[1]), pathlib.Path(sys.argv[2])).follow(lambda: False)
"""


@pytest.fixture
def csv_path(tmp_path: Path) -> Path:
    return tmp_path / "network_metrics.csv"


@contextmanager
def following(url: str, path: Path, events: Path | None = None) -> Iterator[Collector]:
    """Follow in a thread until the block ends; its error, if any, is raised at the end."""
    stop, failed = threading.Event(), []
    with connect(url) as connection:
        collector = Collector(connection, path, events=events)

        def work() -> None:
            try:
                collector.follow(stop.is_set)
            except PtzmeshError as exc:
                failed.append(exc)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield collector
        finally:
            stop.set()
            thread.join()
    if failed:
        raise failed[0]


def position(connection: redis.Redis, path: Path) -> str | None:
    return group_position(connection, default_group(path))


def has_rows(collector: Collector, rows: int) -> bool:
    return collector.rows == rows


def last_id(path: Path) -> str:
    return file_rows(path)[-1][-1]


def wipe(server: EmbeddedServer) -> None:
    """Take the disk away from a stopped server."""
    for file in sorted(server.home.rglob("*append*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()


def test_every_result_is_one_row_in_order(connection: redis.Redis, csv_path: Path) -> None:
    fill(connection, 2345)
    collector = Collector(connection, csv_path)
    collector.drain()
    assert csv_path.read_bytes().startswith(HEADER)
    assert file_rows(csv_path) == stream_rows(connection)
    assert collector.rows == 2345
    assert position(connection, csv_path) == last_id(csv_path)
    fill(connection, 10, first=2345)
    collector.drain()
    Collector(connection, csv_path).drain()
    assert file_rows(csv_path) == stream_rows(connection)


def test_empty_stream_gives_a_header_and_a_group_at_the_start(
    connection: redis.Redis, csv_path: Path
) -> None:
    Collector(connection, csv_path).drain()
    assert csv_path.read_bytes() == HEADER
    assert position(connection, csv_path) == START


@pytest.mark.parametrize("content", [b"", HEADER[:1], HEADER[:-1], HEADER])
def test_empty_file_and_torn_header_are_fine(
    connection: redis.Redis, csv_path: Path, content: bytes
) -> None:
    csv_path.write_bytes(content)
    fill(connection, 3)
    Collector(connection, csv_path).drain()
    assert file_rows(csv_path) == stream_rows(connection)


@pytest.mark.parametrize(
    "content",
    [
        b"timestamp,host,latency_ms,packet_loss_pct,throughput_mbps\n",
        b"notes of mine, not to be lost",
        b"\xef\xbb\xbf" + HEADER,
        HEADER.replace(b"\n", b"\r\n"),
        HEADER + b"not,a,row\n",
        HEADER + b"\n",
        HEADER + b"," * (len(CSV_COLUMNS) - 1) + b"\n",
        bytes(range(256)),
    ],
)
def test_file_that_is_not_ours_is_refused_and_left_as_it_is(
    connection: redis.Redis, csv_path: Path, content: bytes
) -> None:
    csv_path.write_bytes(content)
    with pytest.raises(ConfigError, match="left as it is"):
        Collector(connection, csv_path).drain()
    assert csv_path.read_bytes() == content
    assert collectors(connection) == []


def test_path_that_is_no_file_is_refused(connection: redis.Redis, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        Collector(connection, tmp_path).drain()
    with pytest.raises(ConfigError, match="cannot be opened"):
        Collector(connection, tmp_path / "none" / "file.csv").drain()
    with pytest.raises(ConfigError, match="regular file"):
        Collector(connection, Path("/dev/null")).drain()


def test_line_torn_at_any_byte_is_written_whole_again(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 4)
    Collector(connection, csv_path).drain()
    whole = csv_path.read_bytes()
    begin = whole.rstrip(b"\n").rindex(b"\n") + 1
    assert len(whole) - begin > 100
    for end in range(begin, len(whole)):
        csv_path.write_bytes(whole[:end])
        Collector(connection, csv_path).drain()
        assert csv_path.read_bytes() == whole, f"torn at byte {end}"


def test_zeros_left_by_a_power_cut_are_cut(connection: redis.Redis, csv_path: Path) -> None:
    fill(connection, 20)
    Collector(connection, csv_path).drain()
    whole = csv_path.read_bytes()
    lines = whole.split(b"\n")
    hole = len(b"\n".join(lines[:10])) + 5
    csv_path.write_bytes(whole[:hole] + bytes(50) + whole[hole + 50 :])
    Collector(connection, csv_path).drain()
    assert csv_path.read_bytes() == whole


def test_deleted_file_is_filled_from_the_stream_only_where_that_is_asked_for(
    connection: redis.Redis, csv_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(connection, 30)
    Collector(connection, csv_path).drain()
    csv_path.unlink()
    connection.xtrim(keyspace.RESULTS, maxlen=20, approximate=False)
    Collector(connection, csv_path).drain()
    assert file_rows(csv_path) == []
    assert "--from-start" in caplog.text
    fill(connection, 1, first=30)
    Collector(connection, csv_path).drain()
    assert len(file_rows(csv_path)) == 1
    Collector(connection, csv_path, from_start=True).drain()
    assert sorted(file_rows(csv_path)) == sorted(stream_rows(connection))
    Collector(connection, csv_path).drain()
    assert len(file_rows(csv_path)) == 21


def test_older_copy_of_the_file_is_brought_up_to_date(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 10)
    Collector(connection, csv_path).drain()
    copy = csv_path.read_bytes()
    fill(connection, 10, first=10)
    Collector(connection, csv_path).drain()
    csv_path.write_bytes(copy)
    Collector(connection, csv_path).drain()
    assert file_rows(csv_path) == stream_rows(connection)


def test_second_writer_is_refused(redis_url: str, csv_path: Path) -> None:
    with following(redis_url, csv_path), connect(redis_url) as connection:
        wait_until(
            lambda: csv_path.exists() and csv_path.read_bytes() == HEADER, "the file has its header"
        )
        with pytest.raises(ConfigError, match="another process collects"):
            Collector(connection, csv_path).drain()


def test_bad_entry_is_set_aside_once_and_collecting_goes_on(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 2)
    ids = [
        connection.xadd(keyspace.RESULTS, {"v": "2", "detail": b"\xff\x00"}),
        connection.xadd(keyspace.RESULTS, fields_of(2) | {"source": "two\nlines"}),
    ]
    collector = Collector(connection, csv_path)
    collector.drain()
    assert (collector.rows, collector.bad) == (2, 2)
    Collector(connection, csv_path).drain()
    fill(connection, 1, first=2)
    Collector(connection, csv_path).drain()
    bad = csv_path.with_name(csv_path.name + ".bad").read_text().splitlines()
    assert [json.loads(line)["stream_id"].encode() for line in bad] == ids
    kept = json.loads(bad[0])["fields"]["detail"]
    assert kept.encode("latin-1") == b"\xff\x00"
    assert len(file_rows(csv_path)) == 3


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


def test_full_disk_leaves_whole_lines_and_acknowledges_no_more(
    redis_url: str, connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 2500)
    limit = 600_000
    program = (
        "import resource, sys, pathlib\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from coordinator.collect.collector import Collector\n"
        "from worker.wire.connection import server\n"
        "Collector(server.connect(sys.argv[1]), pathlib.Path(sys.argv[2])).drain()\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    ended = subprocess.run(
        [sys.executable, "-c", program, redis_url, str(csv_path)], capture_output=True, text=True
    )
    assert "PtzmeshError" in ended.stderr.splitlines()[-1]
    assert "cannot be written: File too large" in ended.stderr
    assert csv_path.read_bytes().endswith(b"\n")
    rows = file_rows(csv_path)
    assert 0 < len(rows) < 2500
    assert rows == stream_rows(connection)[: len(rows)]
    assert position(connection, csv_path) == rows[-1][-1]
    Collector(connection, csv_path).drain()
    assert file_rows(csv_path) == stream_rows(connection)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of 512 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_disk_that_is_really_full(connection: redis.Redis, small_disk: Path) -> None:
    path = small_disk / "file.csv"
    fill(connection, 2500)
    with pytest.raises(PtzmeshError, match="No space left on device"):
        Collector(connection, path).drain()
    rows = file_rows(path)
    assert rows == stream_rows(connection)[: len(rows)]
    assert position(connection, path) == rows[-1][-1]
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    Collector(connection, path).drain()
    assert file_rows(path) == stream_rows(connection)


@pytest.mark.parametrize("seed", [*(pytest.param(n, marks=pytest.mark.long) for n in (1, 2)), 3])
def test_killed_again_and_again_no_row_is_lost_or_doubled(
    redis_url: str, connection: redis.Redis, csv_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    fill(connection, 15_000)

    def produce() -> None:
        with connect(redis_url) as mine:
            for first in range(15_000, 30_000, 100):
                fill(mine, 100, first=first)

    producer = threading.Thread(target=produce)
    producer.start()
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", FOLLOW, redis_url, str(csv_path)])
        wait_until(
            partial(grew_or_is_whole, connection, csv_path, size_of(csv_path)),
            "the file grows, or has all",
        )
        time.sleep(rng.uniform(0, 0.1))  # the moment of the kill is what is random here
        child.send_signal(signal.SIGKILL)
        child.wait()
    producer.join()
    Collector(connection, csv_path).drain()
    assert file_rows(csv_path) == stream_rows(connection)
    assert len(file_rows(csv_path)) == 30_000


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def grew_or_is_whole(connection: redis.Redis, path: Path, size: int) -> bool:
    grew = size_of(path) > max(size, len(HEADER))
    return grew or newest(connection) == position(connection, path)


def test_following_collects_as_results_come(redis_url: str, csv_path: Path) -> None:
    with connect(redis_url) as connection, following(redis_url, csv_path) as collector:
        for batch in range(5):
            fill(connection, 10, first=10 * batch)
            wait_until(
                partial(has_rows, collector, 10 * batch + 10), f"batch {batch} is in the file"
            )
        assert file_rows(csv_path) == stream_rows(connection)


def test_following_a_redis_that_is_not_there_is_told_at_once(csv_path: Path) -> None:
    with (
        connect("unix:///nonexistent.sock") as connection,
        pytest.raises(redis.ConnectionError),
    ):
        Collector(connection, csv_path).follow(lambda: False)


def test_following_goes_on_when_redis_returns_with_its_data(
    redis_server: EmbeddedServer, csv_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(redis_server.url) as connection:
        with following(redis_server.url, csv_path) as collector:
            fill(connection, 20)
            wait_until(lambda: collector.rows == 20, "the file has 20 rows")
            redis_server.kill()
            wait_until(lambda: "Redis is away" in caplog.text, "it says that Redis is away")
            redis_server.start()
            fill(connection, 20, first=20)
            wait_until(lambda: collector.rows == 40, "the file has 40 rows")
        assert file_rows(csv_path) == stream_rows(connection)
        assert caplog.text.count("Redis is away") == 1
        assert position(connection, csv_path) == last_id(csv_path)


def test_following_goes_on_when_redis_returns_empty(
    redis_server: EmbeddedServer, csv_path: Path
) -> None:
    with connect(redis_server.url) as connection:
        with following(redis_server.url, csv_path) as collector:
            fill(connection, 20)
            wait_until(lambda: collector.rows == 20, "the file has 20 rows")
            redis_server.kill()
            wipe(redis_server)
            redis_server.start()
            fill(connection, 20, first=20)
            wait_until(lambda: collector.rows == 40, "the file has 40 rows")
        assert file_rows(csv_path)[20:] == stream_rows(connection)
        assert position(connection, csv_path) == last_id(csv_path)


def test_new_rows_are_not_skipped_when_redis_returns_empty_with_its_clock_back(
    redis_server: EmbeddedServer, csv_path: Path
) -> None:
    with connect(redis_server.url) as connection:
        with following(redis_server.url, csv_path) as collector:
            fill(connection, 20)
            wait_until(lambda: collector.rows == 20, "the file has 20 rows")
            redis_server.kill()
            wipe(redis_server)
            redis_server.start()
            connection.xadd(keyspace.RESULTS, fields_of(7), id="1000-0")  # sent again: is there
            for number in range(20, 40):
                connection.xadd(keyspace.RESULTS, fields_of(number), id=f"{980 + number}-1")
            wait_until(lambda: collector.rows == 40, "the file has 40 rows")
            fill(connection, 5, first=40)
            wait_until(lambda: collector.rows == 45, "the file has 45 rows")
        times = [row[0] for row in file_rows(csv_path)]
        assert times == [measurement(n).to_row("")[0] for n in range(45)]
        Collector(connection, csv_path).drain()
        assert len(file_rows(csv_path)) == 45


def test_stream_that_went_back_while_no_collector_ran(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 20)
    Collector(connection, csv_path).drain()
    connection.delete(keyspace.RESULTS)
    for number in range(15, 30):
        connection.xadd(keyspace.RESULTS, fields_of(number), id=f"{number}-1")
    for _ in range(2):
        Collector(connection, csv_path).drain()
        times = [row[0] for row in file_rows(csv_path)]
        assert times == [measurement(n).to_row("")[0] for n in range(30)]


def test_group_destroyed_while_following_is_made_again(redis_url: str, csv_path: Path) -> None:
    with connect(redis_url) as connection, following(redis_url, csv_path) as collector:
        fill(connection, 20)
        wait_until(lambda: collector.rows == 20, "the file has 20 rows")
        wait_until(
            lambda: position(connection, csv_path) == last_id(csv_path), "Redis knows the last row"
        )
        forget(connection, collector.group)
        fill(connection, 20, first=20)
        wait_until(lambda: collector.rows == 40, "the file has 40 rows")
        wait_until(lambda: bool(collectors(connection)), "the collector is known again")
        wait_until(
            lambda: position(connection, csv_path) == last_id(csv_path), "Redis knows the last row"
        )
        assert file_rows(csv_path) == stream_rows(connection)


def test_file_deleted_while_following_goes_on_with_the_rows_that_come_after(
    redis_url: str, csv_path: Path
) -> None:
    with connect(redis_url) as connection, following(redis_url, csv_path) as collector:
        fill(connection, 20)
        wait_until(lambda: collector.rows == 20, "the file has 20 rows")
        csv_path.unlink()
        fill(connection, 1, first=20)
        wait_until(lambda: collector.rows == 21, "the file has 21 rows")
        assert file_rows(csv_path) == stream_rows(connection)[20:]


def test_file_replaced_while_following_is_opened_again(
    redis_url: str, csv_path: Path, tmp_path: Path
) -> None:
    with connect(redis_url) as connection, following(redis_url, csv_path) as collector:
        fill(connection, 10)
        wait_until(lambda: collector.rows == 10, "the file has 10 rows")
        other = tmp_path / "edited"
        other.write_bytes(b"".join(csv_path.read_bytes().splitlines(keepends=True)[:6]))
        other.replace(csv_path)
        fill(connection, 10, first=10)
        wait_until(lambda: len(file_rows(csv_path)) == 20, "the file has 20 rows")
        assert file_rows(csv_path) == stream_rows(connection)


def test_data_lost_between_reading_and_acknowledging_hides_no_row(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 5)
    Collector(connection, csv_path).drain()
    with CsvFile(csv_path) as file:
        place = Place(connection, default_group(csv_path), file)
        place.begin()
        connection.delete(keyspace.RESULTS)
        connection.xadd(keyspace.RESULTS, fields_of(6), id="5-1")  # the clock was back for a while
        fill(connection, 1, first=7)
        (entry,) = Pages(connection).after(place.position)
        file.append([measurement(7).to_row(entry[0].decode())])
        place.passed(entry, 1)
        assert place.position == START
        left = place.unseen(Pages(connection).after(place.position))
        assert [stream_id for stream_id, _ in left] == [b"5-1"]


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
        place = Place(connection, default_group(csv_path), file)
        place.begin()
        entries = Pages(connection).after(place.position)
        place.passed(entries[-1], len(entries))
    assert collectors(connection)[0].lag == 30 - len(entries)


def test_group_name_with_a_space_is_refused(connection: redis.Redis, csv_path: Path) -> None:
    with pytest.raises(ConfigError, match="printable"):
        Collector(connection, csv_path, group="a b")


def test_commits_are_reported(connection: redis.Redis, csv_path: Path) -> None:
    fill(connection, 2100)
    commits: list[int] = []
    Collector(connection, csv_path, on_commit=commits.append).drain()
    assert sum(commits) == 2100
    assert len(commits) >= 3


def test_row_of_the_file_is_found_again_by_its_identity(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 3)
    Collector(connection, csv_path).drain()
    with CsvFile(csv_path) as file:
        identities = list(file.identities())
        assert file.last == identities[-1]
        assert file.last is not None
        assert file.last.run == RUN
        assert file.cursor == last_id(csv_path)


def test_rows_on_stdout_are_those_of_a_file_and_no_collector_is_left(
    redis_url: str, connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 20)
    done = cli(redis_url, "collect", "--csv", "-")
    assert done.returncode == 0, done.stderr
    assert collectors(connection) == []
    Collector(connection, csv_path).drain()
    assert done.stdout == csv_path.read_text()
