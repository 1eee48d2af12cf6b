"""Tests that wait side by side end as pytest's own tests do, and are chosen as these are."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

HEAD = """
import threading
import pytest
from side_by_side import beside
from waiting import wait_until

begun, both = [], threading.Barrier(2, timeout=60)

def waits(check):
    def body(item):
        begun.append(item.name)
        check()
    @beside(body)
    def test(outcome):
        outcome()
    return test
"""


def run(pytester: pytest.Pytester, tests: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(HEAD + tests)
    return pytester.runpytest_inprocess("-p", "side_by_side", "-p", "no:cacheprovider", *options)


def test_tests_of_a_module_run_at_the_same_time(pytester: pytest.Pytester) -> None:
    done = run(
        pytester,
        """
test_one = waits(both.wait)
test_two = waits(both.wait)
""",
    )
    done.assert_outcomes(passed=2)


def test_outcomes_are_pytest_s_own_and_tell_where_they_are_of(pytester: pytest.Pytester) -> None:
    done = run(
        pytester,
        """
def fails(): assert "left" == "right"
test_that_fails = waits(fails)
test_that_skips = waits(lambda: pytest.skip("no network"))
test_that_is_expected_to_fail = waits(lambda: pytest.xfail("not yet"))
test_that_is_marked = pytest.mark.xfail(strict=True)(waits(fails))
test_that_is_not_run = pytest.mark.skip(waits(lambda: None))
test_that_may_be = pytest.mark.skipif(False, reason="it may")(waits(lambda: None))
test_that_holds = waits(lambda: None)
def test_what_was_begun(): assert "test_that_is_not_run" not in begun
""".replace(
            "pytest.mark.xfail(waits(fails), strict=True)",
            "pytest.mark.xfail(strict=True)(waits(fails))",
        ),
        "-rs",
    )
    done.assert_outcomes(passed=3, failed=1, skipped=2, xfailed=2)
    done.stdout.fnmatch_lines(['*assert "left" == "right"*', "*no network*"])


def test_exit_of_a_body_ends_the_session(pytester: pytest.Pytester) -> None:
    done = run(
        pytester,
        """
test_that_exits = waits(lambda: pytest.exit("enough", returncode=7))
def test_after_it(): pass
""",
    )
    assert done.ret == 7
    done.assert_outcomes()


def test_first_failure_ends_the_others_where_that_is_asked_for(pytester: pytest.Pytester) -> None:
    done = run(
        pytester,
        """
def fails(): assert 0
test_that_fails = waits(fails)
test_that_would_wait = waits(lambda: wait_until(lambda: False, "nothing", 600.0))
""",
        "-x",
    )
    done.assert_outcomes(failed=1)
    assert done.duration < 60


def test_only_what_is_chosen_is_begun(pytester: pytest.Pytester) -> None:
    done = run(
        pytester,
        """
test_wanted = waits(lambda: None)
test_that_is_left = waits(lambda: None)
def test_begun_are_those_wanted(): assert begun == ["test_wanted"]
""",
        "-k",
        "wanted",
    )
    done.assert_outcomes(passed=2, deselected=1)


def test_equal_names_in_two_modules_are_two_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_a=HEAD + "test_it = waits(lambda: None)",
        test_b=HEAD + "test_it = waits(lambda: pytest.skip('of b'))",
    )
    done = pytester.runpytest_inprocess("-p", "side_by_side", "-p", "no:cacheprovider")
    done.assert_outcomes(passed=1, skipped=1)


def test_durations_are_those_of_the_bodies(pytester: pytest.Pytester) -> None:
    done = run(
        pytester,
        """
import time
test_first = waits(lambda: time.sleep(0.3))
test_second = waits(lambda: time.sleep(0.3))
""",
        "--durations=0",
        "-vv",
    )
    for name in ("first", "second"):
        done.stdout.re_match_lines([rf"0\.[3-9]\ds call +\S+::test_{name}"])
