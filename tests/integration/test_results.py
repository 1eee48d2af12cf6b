"""The typed reader: pages, order, one run, bad entries, and following across an outage."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError
from samples import BEGUN, RUN, fields_of, fill, measurement
from waiting import wait_until

from coordinator.embedded import EmbeddedServer
from coordinator.results import results, stream
from coordinator.runs.runs import CLOCK_MARGIN_S, of_run
from worker.model.errors import ConfigError
from worker.model.measurement import Measurement
from worker.model.plan import Plan, PlannedNode
from worker.wire import keyspace, scripts
from worker.wire.connection import server
from worker.wire.round_trip import alone

pytestmark = pytest.mark.redis

MS = int(BEGUN.timestamp() * 1000)


def add(connection: redis.Redis, stream_id: str, number: int, run: str = RUN) -> None:
    connection.xadd(keyspace.RESULTS, fields_of(number, run), id=stream_id)


def write_run(connection: redis.Redis, run: str, created: float, closed: float | None) -> None:
    nodes = tuple(PlannedNode(name=name, address="10.0.0.1") for name in "ab")
    plan = Plan(nodes=nodes, sources=(0, 1), targets=(0, 1))
    record: dict[Any, Any] = {"status": "running", "phase": "0", "created": repr(created)}
    if closed is not None:
        record |= {"status": "done", "closed": repr(closed)}
    connection.hset(keyspace.run_key(run), mapping=record | {"plan": plan.packed()})


def test_all_results_come_once_in_order(connection: redis.Redis) -> None:
    fill(connection, 1234)
    found = list(results.read(connection))
    assert [m for _, m in found] == [measurement(number) for number in range(1234)]
    ids = [stream_id for stream_id, _ in found]
    assert len(set(ids)) == 1234
    assert [m for _, m in results.read(connection, after=ids[999])] == [
        measurement(number) for number in range(1000, 1234)
    ]


def test_no_stream_is_no_results(connection: redis.Redis) -> None:
    assert list(results.read(connection)) == []
    assert stream.last_id(connection) == stream.START


def test_pages_of_large_entries_are_small(connection: redis.Redis) -> None:
    big = fields_of(1) | {"error": "x" * 100_000}
    for _ in range(40):
        connection.xadd(keyspace.RESULTS, big)
    pages = stream.Pages(connection)
    sizes, position = [], stream.START
    while not pages.at_end:
        entries = pages.after(position)
        sizes.append(len(entries))
        position = entries[-1][0].decode() if entries else position
    assert sum(sizes) == 40
    assert max(sizes[1:]) <= stream.MAX_PAGE_BYTES // 100_000


def test_pages_of_which_every_other_entry_is_large_are_small(connection: redis.Redis) -> None:
    for number in range(80):
        size = 100_000 * (number % 2)
        connection.xadd(keyspace.RESULTS, fields_of(1) | {"error": "x" * size})
    pages = stream.Pages(connection)
    first = pages.after(stream.START)
    assert len(pages.after(first[-1][0].decode())) <= 3 * stream.MAX_PAGE_BYTES // 100_000


def followed(connection: redis.Redis) -> list[stream.Entry]:
    """Read the whole stream as a follower does, who waits for more."""
    pages, entries = stream.Pages(connection), list[stream.Entry]()
    newest, position = stream.last_id(connection), stream.START
    while position != newest:
        page = alone(connection, pages.asking(position, waiting=True))
        entries += [(stream_id, fields) for stream_id, fields in page]
        position = page[-1][0].decode() if page else position
    return entries


def all_of(connection: redis.Redis) -> list[stream.Entry]:
    """Read the stream as it is."""
    entries = stream.entries_between(connection, "-", "+")
    return [(stream_id, fields) for stream_id, fields in entries]


def test_a_follower_has_every_entry_as_it_is_in_the_stream(connection: redis.Redis) -> None:
    fill(connection, 20)
    fields: dict[Any, Any] = {b"v": b"1", b"run": b"", b"\xff\x00": bytes(range(256)) * 300}
    for each in (fields, fields, {"v": "2"}, {"v": "", "more": "2"}, {"more": "2", "v": ""}):
        connection.xadd(keyspace.RESULTS, each)
    # Twice as many as are packed at a time: those after them are not.
    fill(connection, 2 * stream.MOST_PACKED, first=20)
    assert followed(connection) == all_of(connection)


def test_a_follower_without_the_right_to_call_scripts_reads_all(
    redis_url: str, connection: redis.Redis
) -> None:
    fill(connection, 100)
    url = redis_url.replace("://", "://reader:any@")
    rights = "reset", "on", ">any", "~*", "+@all", "-evalsha"
    connection.execute_command("ACL", "SETUSER", "reader", *rights)
    try:
        with redis.Redis.from_url(url) as reader:
            with pytest.raises(NoPermissionError):
                reader.evalsha("0" * 40, 0)
            entries = followed(reader)
    finally:
        connection.acl_deluser("reader")
    assert entries == all_of(connection)


def test_a_page_of_like_results_takes_half_the_bytes(connection: redis.Redis) -> None:
    fill(connection, 60)
    plain, sent = sent_by(connection, lambda: all_of(connection))
    page = scripts.script(connection, "page")
    page([keyspace.RESULTS], [stream.START, 60])
    packed, sent_packed = sent_by(connection, lambda: page([keyspace.RESULTS], [stream.START, 60]))
    assert stream.unpacked(packed) == plain
    assert sent_packed < sent / 2


def sent_by(connection: redis.Redis, call: Callable[[], Any]) -> tuple[Any, int]:
    """Give what a call returns, and the bytes that Redis sent meanwhile."""
    before = connection.info("stats")["total_net_output_bytes"]
    answer = call()
    return answer, connection.info("stats")["total_net_output_bytes"] - before


def test_only_the_part_of_the_stream_written_during_the_run_is_read(
    connection: redis.Redis,
) -> None:
    margin = CLOCK_MARGIN_S
    for number, seconds in enumerate((0, margin + 9, margin + 10, margin + 12, 2 * margin + 13)):
        add(connection, f"{MS + seconds * 1000}-0", number)
    write_run(connection, RUN, BEGUN.timestamp() + margin + 10, BEGUN.timestamp() + margin + 12)
    assert [m for _, m in of_run(connection, RUN)] == [measurement(n) for n in (1, 2, 3)]


def test_results_of_other_runs_are_left_out(connection: redis.Redis) -> None:
    for number in range(6):
        add(connection, f"{MS + number}-0", number, RUN if number % 2 else "other")
    write_run(connection, RUN, BEGUN.timestamp(), None)
    assert [m for _, m in of_run(connection, RUN)] == [measurement(n) for n in (1, 3, 5)]
    with pytest.raises(ConfigError, match="not known"):
        of_run(connection, "never")


def test_bad_entry_is_logged_and_the_reader_goes_on(
    connection: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    fill(connection, 1)
    bad_id = connection.xadd(keyspace.RESULTS, {"v": "99"})
    fill(connection, 1, first=1)
    assert [m for _, m in results.read(connection)] == [measurement(0), measurement(1)]
    (line,) = caplog.messages
    assert line.startswith(f"entry {bad_id.decode()} is set aside: ")
    assert "upgrade" in line


def test_following_goes_on_across_a_restart_and_says_so_once(
    redis_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    found: list[Measurement] = []
    stop = threading.Event()

    def follow() -> None:
        with server.connect(redis_server.url) as mine:
            found.extend(m for _, m in results.follow(mine, stop.is_set, after=stream.START))

    with server.connect(redis_server.url) as connection:
        fill(connection, 10)
        thread = threading.Thread(target=follow)
        thread.start()
        wait_until(lambda: len(found) == 10, "10 results are read")
        redis_server.kill()
        wait_until(lambda: "away" in caplog.text, "it says that Redis is away")
        redis_server.start()
        fill(connection, 10, first=10)
        wait_until(lambda: len(found) == 20, "20 results are read")
        stop.set()
        thread.join()
    assert found == [measurement(number) for number in range(20)]
    assert caplog.text.count("Redis is away") == 1


def test_following_begins_now_unless_told_otherwise(connection: redis.Redis) -> None:
    fill(connection, 5)
    stop = threading.Event()
    follower = results.follow(connection, stop.is_set)
    first: list[Measurement] = []
    thread = threading.Thread(target=lambda: first.append(next(follower)[1]))
    thread.start()
    wait_until(
        lambda: any(c["cmd"] == "xread" for c in connection.client_list()),
        "the reader waits for more",
    )
    fill(connection, 1, first=5)
    thread.join()
    stop.set()
    assert first == [measurement(5)]
