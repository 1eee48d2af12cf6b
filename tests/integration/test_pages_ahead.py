"""A page that is asked for ahead, while the rows of the one before are made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from samples import fields_of, file_rows, fill, measurement, stream_rows

from coordinator.collect.collector import COMMIT_ROWS, Collector
from coordinator.results import stream
from worker.wire import keyspace

pytestmark = pytest.mark.redis

RESULTS = COMMIT_ROWS + 1500


def drained(connection: redis.Redis, path: Path, after_first: Callable[[], object]) -> Collector:
    """Drain, and do something after the first commit: the next page is asked for already."""
    commits: list[int] = []

    def note(rows: int) -> None:
        commits.append(rows)
        if len(commits) == 1:
            after_first()

    collector = Collector(connection, path, on_commit=note)
    collector.drain()
    assert len(commits) > 1
    return collector


@pytest.fixture
def others(connection: redis.Redis) -> Callable[[], list[str]]:
    """Give the ids of our connections that are not the one that is asked, when called."""

    def not_asked() -> set[str]:
        mine = connection.client_id()
        return {one["id"] for one in connection.client_list() if int(one["id"]) != mine}

    left_by_earlier_tests = not_asked()
    return lambda: sorted(not_asked() - left_by_earlier_tests)


def test_second_connection_is_there_only_while_much_is_to_come(
    connection: redis.Redis, csv_path: Path, others: Callable[[], list[str]]
) -> None:
    fill(connection, RESULTS)
    seen: list[str] = []
    drained(connection, csv_path, lambda: seen.extend(others()))
    assert len(seen) == 1
    assert others() == []
    assert file_rows(csv_path) == stream_rows(connection)


def test_few_results_are_read_on_one_connection(
    connection: redis.Redis, csv_path: Path, others: Callable[[], list[str]]
) -> None:
    fill(connection, stream.FIRST_PAGE + stream.MAX_PAGE - 1)
    seen: list[str] = []
    Collector(connection, csv_path, on_commit=lambda _: seen.extend(others())).drain()
    assert seen == []
    assert file_rows(csv_path) == stream_rows(connection)


def test_page_whose_connection_is_cut_is_asked_for_again(
    connection: redis.Redis, csv_path: Path, others: Callable[[], list[str]]
) -> None:
    fill(connection, RESULTS)
    cut: list[bool] = []

    def cut_it() -> None:
        cut.extend(bool(connection.client_kill_filter(_id=one)) for one in others())

    drained(connection, csv_path, cut_it)
    assert cut == [True]
    assert file_rows(csv_path) == stream_rows(connection)


def test_page_of_a_stream_that_is_lost_hides_nothing_of_the_next(
    connection: redis.Redis, csv_path: Path
) -> None:
    fill(connection, RESULTS)
    before = stream_rows(connection)

    def lose() -> None:
        connection.delete(keyspace.RESULTS)
        fill(connection, 700, first=RESULTS)

    drained(connection, csv_path, lose)
    rows = file_rows(csv_path)
    after = stream_rows(connection)
    assert len(after) == 700
    assert rows[-700:] == after
    assert rows[:-700] == before[: len(rows) - 700]
    assert len({tuple(row[:-1]) for row in rows}) == len(rows)


def test_page_that_is_not_the_one_asked_for_ahead_is_none_of_it(connection: redis.Redis) -> None:
    fill(connection, 1000)
    pages = stream.Pages(connection)
    first = pages.after(stream.START)
    second = pages.after(first[-1][0].decode())
    pages.ask_ahead(second[-1])
    assert pages.after(first[-1][0].decode()) == second


def test_pages_of_large_entries_are_asked_for_ahead(
    connection: redis.Redis, csv_path: Path
) -> None:
    for number in range(60):
        connection.xadd(keyspace.RESULTS, fields_of(number) | {"more": "x" * 10_000})
    pages = stream.Pages(connection)
    read = pages.after(stream.START)
    while not pages.at_end:
        pages.ask_ahead(read[-1])
        read += pages.after(read[-1][0].decode())
    pages.close()
    assert [i for i, _ in read] == [i for i, _ in connection.xrange(keyspace.RESULTS)]
    assert measurement(0).run.encode() in read[0][1]
