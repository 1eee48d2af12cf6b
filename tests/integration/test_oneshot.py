"""A file of whole runs: each pair once, whatever is killed, and nothing left behind in Redis."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import redis
from samples import RUN, file_rows, fill, measurement
from waiting import wait_until

from coordinator.collect.collector import Collector
from coordinator.collect.csvfile import HEADER
from coordinator.collect.groups import collectors
from coordinator.collect.oneshot import OneShot
from coordinator.collect.verify import verify
from coordinator.runs.follow import follow_run
from coordinator.runs.holds import HOLD_S, Hold
from coordinator.runs.runs import read_run, recent
from integration.nodes import cli, workers
from integration.rows import plan
from worker.model.errors import ConfigError, PtzmeshError, RunIncomplete
from worker.model.measurement import Measurement
from worker.model.plan import Plan
from worker.probes.icmp.engine import icmp_capability
from worker.publish.outbox import Letter, publish
from worker.wire import keyspace, scripts
from worker.wire.connection import server
from worker.wire.room import StreamFull

pytestmark = pytest.mark.redis

#: Collected long ago, by the code of then.
EARLIER = Path(__file__).parents[2] / "docs" / "analyse" / "mesh.csv"
OTHER = "20260102T030405000-beef"
FOLLOW = """
import pathlib, sys
from coordinator.collect.oneshot import OneShot
from worker.wire.connection import server
connection = server.connect(sys.argv[1])
with OneShot(connection, pathlib.Path(sys.argv[2])) as file:
    for _ in file.follow(sys.argv[3]):
        pass
"""


@pytest.fixture
def csv_path(tmp_path: Path) -> Path:
    return tmp_path / "run.csv"


def begin(connection: redis.Redis, run: str, planned: Plan) -> list[Letter]:
    """Make an open run that no node works on, and give its results."""
    record = {
        "plan": planned.packed(),
        "status": "running",
        "phase": 0,
        "pairs:ping": planned.pair_count,
        "created": repr(scripts.redis_seconds(connection)),
    }
    connection.hset(keyspace.run_key(run), mapping=dict(record))
    connection.zadd(keyspace.RUNS, {run: scripts.redis_seconds(connection)})
    return [
        Letter(planned.bit(source, target), result(number, run, planned, source, target))
        for number, (source, target) in enumerate(planned.pairs("ping"))
    ]


def result(number: int, run: str, planned: Plan, source: int, target: int) -> Measurement:
    names = [planned.nodes[index].name for index in (source, target)]
    return replace(measurement(number, run), source=names[0], target=names[1])


def close(connection: redis.Redis, run: str) -> None:
    now = repr(scripts.redis_seconds(connection))
    connection.hset(keyspace.run_key(run), mapping={"status": "done", "closed": now})


def ended(connection: redis.Redis, run: str, size: int = 3) -> None:
    """Make a run that has ended, with all its results in the stream."""
    publish(connection, begin(connection, run, plan(size)))
    close(connection, run)


def write(connection: redis.Redis, run: str, path: Path) -> int:
    """Write a run to its end; give how many rows were added."""
    with OneShot(connection, path) as file:
        for _ in file.follow(run):
            pass
        file.check_whole(read_run(connection, run))
        return file.rows


def test_a_file_has_the_rows_of_its_runs_and_no_others_and_nothing_stays_in_redis(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, 50, run="20260102T030405000-0000")
    ended(connection, RUN)
    ended(connection, OTHER)
    for _ in range(3):
        for run in (RUN, OTHER):
            write(connection, run, csv_path)
    rows = [line.split(",") for line in csv_path.read_text().splitlines()[1:]]
    assert len(rows) == 12
    assert {row[-1] for row in rows} == {""}
    for run in (RUN, OTHER):
        assert verify(connection, run, csv_path).agrees
    assert collectors(connection) == []
    assert not connection.exists(keyspace.HOLDS)


def test_moved_while_it_is_written_is_told_with_what_gets_all_rows(
    connection: redis.Redis, csv_path: Path
) -> None:
    ended(connection, RUN)
    with OneShot(connection, csv_path) as file:
        file.take_up(read_run(connection, RUN))
        csv_path.unlink()
        with pytest.raises(PtzmeshError) as caught:
            list(map(file.add, follow_run(connection, RUN)))
    assert f"ptzmesh results --run {RUN} --csv {csv_path}" in str(caught.value)
    write(connection, RUN, csv_path)
    assert len(file_rows(csv_path)) == 6


def test_killed_again_and_again_and_repeated_each_pair_is_there_once(
    redis_url: str, connection: redis.Redis, csv_path: Path
) -> None:
    letters = begin(connection, RUN, plan(60))
    ended(connection, OTHER)
    write(connection, OTHER, csv_path)
    rng = random.Random(5)

    def produce() -> None:
        with server.connect(redis_url) as mine:
            for at in range(0, len(letters), 20):
                publish(mine, letters[at : at + 20])
                time.sleep(0.01)

    producer = threading.Thread(target=produce)
    producer.start()
    for _ in range(6):
        argv = [sys.executable, "-c", FOLLOW, redis_url, str(csv_path), RUN]
        before = csv_path.stat().st_size
        child = subprocess.Popen(argv)
        wait_until(
            partial(grew_or_has, csv_path, before, 6 + len(letters)), "the file grows, or has all"
        )
        time.sleep(rng.uniform(0, 0.1))  # the moment of the kill is what is random here
        child.send_signal(signal.SIGKILL)
        child.wait()
    producer.join()
    with csv_path.open("r+b") as file:
        file.truncate(csv_path.stat().st_size - 7)  # as a power cut may leave it
    close(connection, RUN)
    write(connection, RUN, csv_path)
    found = verify(connection, RUN, csv_path)
    assert (found.agrees, found.rows) == (True, len(letters))
    assert verify(connection, OTHER, csv_path).agrees
    assert collectors(connection) == []


def grew_or_has(path: Path, before: int, rows: int) -> bool:
    return path.stat().st_size > before or path.read_bytes().count(b"\n") > rows


def test_a_run_that_is_followed_is_not_trimmed_and_a_dead_follower_holds_nothing(
    connection: redis.Redis, csv_path: Path
) -> None:
    connection.hset(keyspace.LIMITS, mapping={"stream_entries": 300})
    letters = begin(connection, RUN, plan(40))
    with Hold(connection) as hold:
        hold.move("0-1")
        assert publish_until_full(connection, letters) == 300
        Collector(connection, csv_path.with_name("all.csv")).drain()
        assert publish_until_full(connection, letters[300:]) == 0  # collected, and still held
        lapse(connection)
        assert publish_until_full(connection, letters[300:]) > 0
    assert connection.zcard(keyspace.HOLDS) == 0


def publish_until_full(connection: redis.Redis, letters: Sequence[Letter]) -> int:
    for done, letter in enumerate(letters):
        try:
            publish(connection, [letter])
        except StreamFull:
            return done
    return len(letters)


def lapse(connection: redis.Redis) -> None:
    """Let the time pass after which a follower is taken for dead."""
    for member in connection.zrange(keyspace.HOLDS, 0, -1):  # type: ignore[union-attr]  # untyped
        connection.zincrby(keyspace.HOLDS, -2 * HOLD_S, member)


def test_a_run_larger_than_the_stream_is_written_whole_beside_a_collector(
    redis_url: str, connection: redis.Redis, csv_path: Path
) -> None:
    connection.hset(keyspace.LIMITS, mapping={"stream_entries": 200})
    letters = begin(connection, RUN, plan(30))
    everything = Collector(connection, csv_path.with_name("all.csv"))
    child = subprocess.Popen([sys.executable, "-c", FOLLOW, redis_url, str(csv_path), RUN])
    wait_until(csv_path.exists, "the file is there")
    wait_until(lambda: connection.zcard(keyspace.HOLDS) == 1, "the reader holds its place")
    done = 0

    def all_are_published() -> bool:
        nonlocal done
        done += publish_until_full(connection, letters[done:])
        everything.drain()
        return done == len(letters)

    wait_until(all_are_published, "all results are published")
    close(connection, RUN)
    assert child.wait(120) == 0
    assert verify(connection, RUN, csv_path).agrees


def test_results_that_were_trimmed_before_they_were_read_are_told(
    connection: redis.Redis, csv_path: Path
) -> None:
    ended(connection, RUN)
    connection.xtrim(keyspace.RESULTS, maxlen=4, approximate=False)
    with pytest.raises(RunIncomplete, match="2 of 6 results"):
        write(connection, RUN, csv_path)
    assert len(file_rows(csv_path)) == 4


def collect(connection: redis.Redis, path: Path) -> None:
    Collector(connection, path).drain()


def positions(connection: redis.Redis) -> list[tuple[str, str]]:
    return [(one.name, one.position) for one in collectors(connection)]


def write_one(connection: redis.Redis, path: Path) -> None:
    write(connection, RUN, path)


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        (collect, write_one, "ptzmesh collect --csv"),
        (write_one, collect, "ptzmesh results --run ID --csv"),
    ],
)
def test_neither_kind_of_file_takes_rows_of_the_other(
    connection: redis.Redis,
    csv_path: Path,
    first: Callable[[redis.Redis, Path], None],
    second: Callable[[redis.Redis, Path], None],
    names: str,
) -> None:
    ended(connection, RUN)
    first(connection, csv_path)
    moved = csv_path.rename(csv_path.with_name("moved.csv"))
    before = moved.read_bytes()
    known = positions(connection)
    with pytest.raises(ConfigError, match=names) as said:
        second(connection, moved)
    assert "\n" not in str(said.value)
    assert moved.read_bytes() == before
    assert positions(connection) == known


def test_a_collectors_file_of_an_earlier_version_is_taken_for_one(
    connection: redis.Redis, csv_path: Path
) -> None:
    csv_path.write_bytes(EARLIER.read_bytes())
    with pytest.raises(ConfigError, match=f"ptzmesh collect --csv {csv_path}"):
        OneShot(connection, csv_path)
    assert csv_path.read_bytes() == EARLIER.read_bytes()


@pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")
def test_run_repeated_leaves_no_group_behind_and_every_run_whole_in_its_file(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    path = tmp_path / "cron.csv"
    with workers(redis_url, connection, tmp_path, ["a", "b"], []):
        for _ in range(3):
            done = cli(redis_url, "run", "--count", "1", "--csv", str(path))
            assert done.returncode == 0, done.stderr
            assert f"2 rows of run {recent(connection, 1)[0]} added to {path}" in done.stderr
    runs = recent(connection, 9)
    assert [verify(connection, run, path).agrees for run in runs] == [True] * 3
    assert len(file_rows(path)) == 6
    assert collectors(connection) == []
    assert not connection.exists(keyspace.HOLDS)


def test_a_file_with_a_header_only_is_nobodys_yet(connection: redis.Redis, csv_path: Path) -> None:
    collect(connection, csv_path)
    assert csv_path.read_bytes() == HEADER
    ended(connection, RUN)
    assert write(connection, RUN, csv_path) == 6


def test_records_of_a_program_that_measures_itself_are_no_runs(
    connection: redis.Redis, csv_path: Path
) -> None:
    ended(connection, RUN)
    own = replace(measurement(1), run="cam-1:4711").to_row("")
    line = ",".join("" if cell is None else str(cell) for cell in own)
    csv_path.write_bytes(HEADER + line.encode() + b"\n")
    with pytest.raises(ConfigError, match="not a row of ours"):
        write(connection, RUN, csv_path)


def test_results_writes_a_run_that_was_started_detached(
    redis_url: str, connection: redis.Redis, csv_path: Path
) -> None:
    ended(connection, RUN)
    for rows in (6, 0):
        done = cli(redis_url, "results", "--run", "last", "--csv", str(csv_path))
        assert done.returncode == 0, done.stderr
        assert f"{rows} rows of run {RUN} added" in done.stderr
    assert verify(connection, RUN, csv_path).agrees
    printed = cli(redis_url, "results", "--run", "last", "--csv", "-")
    assert printed.stdout == csv_path.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--detach", "--csv", "x.csv"], "ptzmesh results --run ID --csv x.csv"),
        (["results", "--csv", "x.csv"], "ptzmesh collect --csv FILE"),
    ],
)
def test_what_cannot_be_written_is_refused_in_a_line_that_names_what_can(
    redis_url: str, connection: redis.Redis, arguments: list[str], says: str
) -> None:
    ended(connection, RUN)
    done = cli(redis_url, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert sum("--csv" in line for line in done.stderr.splitlines()) == 1
