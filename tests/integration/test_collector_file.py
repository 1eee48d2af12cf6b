"""The collector's file: each result is one row, whatever is torn, full or not ours."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from samples import RUN, fields_of, file_rows, fill, stream_rows

from coordinator.collect.collector import COMMIT_ROWS, Collector
from coordinator.collect.csvfile import HEADER, CsvFile, rows_of
from coordinator.collect.groups import collectors
from coordinator.results.stream import START
from integration.collecting import last_id, position
from integration.nodes import cli
from worker.model.csv_columns import CSV_COLUMNS
from worker.model.errors import ConfigError, PtzmeshError
from worker.wire import keyspace

pytestmark = pytest.mark.redis


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


def test_full_disk_leaves_whole_lines_and_acknowledges_no_more(
    redis_url: str, connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, COMMIT_ROWS + 500)
    limit = 1_050_000
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
    assert 0 < len(rows) < COMMIT_ROWS + 500
    assert rows == stream_rows(connection)[: len(rows)]
    assert position(connection, csv_path) == rows[-1][-1]
    Collector(connection, csv_path).drain()
    assert file_rows(csv_path) == stream_rows(connection)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of 1,400 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1400k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_disk_that_is_really_full(connection: redis.Redis, small_disk: Path) -> None:
    path = small_disk / "file.csv"
    fill(connection, 2 * COMMIT_ROWS)
    with pytest.raises(PtzmeshError, match="No space left on device"):
        Collector(connection, path).drain()
    rows = file_rows(path)
    assert rows == stream_rows(connection)[: len(rows)]
    assert position(connection, path) == rows[-1][-1]
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    Collector(connection, path).drain()
    assert file_rows(path) == stream_rows(connection)


def test_commits_are_reported(connection: redis.Redis, csv_path: Path) -> None:
    fill(connection, 2 * COMMIT_ROWS + 100)
    commits: list[int] = []
    Collector(connection, csv_path, on_commit=commits.append).drain()
    assert sum(commits) == 2 * COMMIT_ROWS + 100
    assert len(commits) >= 3


def test_row_of_the_file_is_found_again_by_its_identity(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 3)
    Collector(connection, csv_path).drain()
    with CsvFile(csv_path) as file:
        identities = list(rows_of(csv_path))
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
