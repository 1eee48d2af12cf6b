"""How many files a node may open."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from worker.node.children import MOST_FILES, open_many_files

FILES = resource.RLIMIT_NOFILE


@pytest.fixture
def hard() -> Iterator[int]:
    soft, hard = resource.getrlimit(FILES)
    yield hard
    resource.setrlimit(FILES, (soft, hard))


def test_low_limit_of_a_shell_or_of_systemd_is_raised(hard: int) -> None:
    resource.setrlimit(FILES, (512, hard))
    open_many_files()
    may_be = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    assert resource.getrlimit(FILES) == (may_be, hard)
    assert may_be > 512


def test_limit_that_is_high_enough_stays(hard: int) -> None:
    resource.setrlimit(FILES, (hard, hard))
    open_many_files()
    assert resource.getrlimit(FILES) == (hard, hard)
