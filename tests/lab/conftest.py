"""
The fixtures `lab`, `pair` and `joined`, and the rule for machines that cannot have a lab.

Tests marked `lab` are skipped with the reason where the lab does not work, and fail where CI=true.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from missing import missing

from lab.echoes import Pair, as_new, joined_namespaces
from lab.namespaces import why_unusable
from lab.net import Lab
from lab.node import Node
from lab.redis_server import Persist


class MakeLab(Protocol):
    """`Lab` with its arguments, already entered."""

    def __call__(
        self,
        nodes: int,
        *,
        redis: bool = ...,
        redis_program: Path | None = ...,
        persist: Persist = ...,
    ) -> Lab: ...


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Decide before any fixture, so that fixtures of any scope may make labs."""
    if item.get_closest_marker("lab") is None or (reason := why_unusable()) is None:
        return
    missing(reason)


@pytest.fixture
def lab() -> Iterator[MakeLab]:
    """Make labs that end with the test."""
    with ExitStack() as stack:

        def make(
            nodes: int,
            *,
            redis: bool = False,
            redis_program: Path | None = None,
            persist: Persist = "nothing",
        ) -> Lab:
            made = Lab(nodes, redis=redis, redis_program=redis_program, persist=persist)
            return stack.enter_context(made)

        yield make


@pytest.fixture
def pair(lab: MakeLab) -> tuple[Lab, Node, Node]:
    """A lab of two nodes, and these."""
    made = lab(2)
    return made, made.nodes[0], made.nodes[1]


@pytest.fixture(scope="module")
def joined_once() -> Iterator[Pair]:
    """Two namespaces that are joined by one veth."""
    with joined_namespaces() as made:
        yield made


@pytest.fixture
def joined(joined_once: Pair) -> Iterator[Pair]:
    """Two namespaces that are joined by one veth, as new."""
    with as_new(joined_once) as made:
        yield made
