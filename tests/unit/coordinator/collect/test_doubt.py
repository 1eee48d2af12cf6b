"""Which entries are looked up among the rows of a file, and which of them are found."""

from __future__ import annotations

from coordinator.collect.csvfile import Identity
from coordinator.collect.doubt import Doubt

UNTIL = (5, 1)
ROW = Identity("run", "ping", "a", "b", "2026-01-01T00:00:00.000Z")
LATER = ROW._replace(started_at="2026-01-01T00:00:09.000Z")
OTHER_WAY = ROW._replace(source="b", target="a")


def test_entries_up_to_its_end_are_in_doubt() -> None:
    doubt = Doubt(UNTIL)
    assert [doubt.covers(one) for one in (b"5-0", b"5-1", b"5-2", b"10-0")] == [
        True,
        True,
        False,
        False,
    ]


def test_every_entry_is_in_doubt_until_the_runs_that_are_open_again_have_ended() -> None:
    doubt = Doubt(UNTIL, frozenset("rs"), frozenset("rs"))
    assert doubt.covers(b"9-0")
    doubt.keep_open(frozenset("sx"), newest=(9, 0))
    assert doubt.reopened == frozenset("s")
    assert doubt.covers(b"12-0")
    doubt.keep_open(frozenset("x"), newest=(12, 3))
    assert doubt.covers(b"12-3")  # what they published meanwhile
    assert not doubt.covers(b"12-4")


def test_end_of_doubt_is_never_moved_back() -> None:
    doubt = Doubt(UNTIL, frozenset("r"), frozenset("r"))
    doubt.keep_open(frozenset(), newest=(2, 0))  # Redis has lost its data once more
    assert doubt.covers(b"5-1")


def test_row_is_found_and_another_measurement_of_its_pair_is_not() -> None:
    doubt = Doubt(UNTIL)
    doubt.read_rows(lambda: [ROW])
    assert [doubt.has(row) for row in (ROW, LATER, OTHER_WAY)] == [True, False, False]


def test_pair_of_a_run_that_redis_went_back_in_is_found_whichever_measurement_it_is() -> None:
    doubt = Doubt(UNTIL, frozenset({"run"}))
    doubt.read_rows(lambda: [ROW])
    assert [doubt.has(row) for row in (ROW, LATER, OTHER_WAY)] == [True, True, False]


def test_rows_are_read_once_and_again_after_they_were_forgotten() -> None:
    files = [[ROW], [ROW, OTHER_WAY]]
    doubt = Doubt(UNTIL)
    for _ in range(2):
        doubt.read_rows(lambda: files.pop(0))
        assert not doubt.has(OTHER_WAY)
    doubt.forget_rows()
    doubt.read_rows(lambda: files.pop(0))
    assert doubt.has(OTHER_WAY)
