"""The order in which files are tested when many are at once."""

from __future__ import annotations

import re

from longest_first import ROOT, TABLE, TOGETHER, in_order, parsed, written


def test_longest_file_is_first_and_its_tests_stay_in_their_order() -> None:
    ids = [
        "tests/b.py::one",
        "tests/a.py::b::x",
        "tests/a.py::a",
        "worker/wire/scripts.py::doctest",
    ]
    ordered = [*ids[1:3], ids[0], ids[3]]
    assert in_order(ids, {"tests/a.py": 9.0, "tests/b.py": 2.0}) == ordered


def test_file_that_nobody_has_timed_does_not_begin_last() -> None:
    ids = ["tests/short.py::one", "tests/new.py::one"]
    assert in_order(ids, {"tests/short.py": 2.0}) == ids[::-1]


def test_table_is_read_as_it_is_written() -> None:
    seconds = {"tests/a.py": 1.5, "tests/b.py": 30.0}
    assert written(seconds | {"worker/wire/scripts.py": 0.1}) == "30.0 tests/b.py\n1.5 tests/a.py\n"
    assert parsed(written(seconds)) == seconds
    assert written(parsed(TABLE.read_text())) == TABLE.read_text()


def test_image_is_built_for_all_that_look_at_it_at_once() -> None:
    files = (ROOT / "tests" / "deploy").glob("test_*.py")
    users = [file for file in files if re.search(r"\bimage: Image\b", file.read_text())]
    assert {str(file.relative_to(ROOT)) for file in users} == TOGETHER.keys()
