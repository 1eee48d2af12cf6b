"""
A plugin for tests that mostly wait, each in a lab of its own: those of a module all wait at once.

A node counts as lost after half a minute of silence, and there is no way to make that shorter which
would still be the same test; one after another they would take an hour. So the first of a module
begins all that this session is to test, each in a thread, and every test has the outcome of its
own: whatever its body raised, a skip too. `--durations` shows how long each body took. Once no more
are asked for (`-x`, Ctrl-C), bodies end at the next look of a `wait_until`.

    def body(item): ...  # runs in a thread; `item` is its test

    @beside(body)
    def test_that_mostly_waits(outcome): outcome()

A test that is marked skip, skipif or xfail is not begun ahead, as it may not be meant to run; if it
is, it runs in its turn. All of a module must be tested in one process (xdist: `--dist loadfile`).
"""

from __future__ import annotations

import fcntl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from waiting import NOT_WANTED, go_on_waiting

Body = Callable[[pytest.Function], None]

#: Who holds one of these files makes a lab; the kernel gives it back for whoever dies.
PLACES = [Path(tempfile.gettempdir(), f"ptzmesh-lab-place-{number}") for number in range(2)]

_SECONDS = pytest.StashKey[float]()
_MAY_NOT_RUN = ("skip", "skipif", "xfail")


def beside(body: Body) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Begin a body beside the others of its module; its test calls the fixture `outcome`."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        test.body = body  # type: ignore[attr-defined]  # functions have any
        return test

    return decorate


class _Pool:
    """The bodies of a module, by the ids of their tests."""

    def __init__(self, items: list[pytest.Function]) -> None:
        self.not_wanted = threading.Event()
        ahead = [item for item in items if not any(map(item.get_closest_marker, _MAY_NOT_RUN))]
        self.threads = ThreadPoolExecutor(max(1, len(ahead)))
        self.futures: dict[str, Future[None]] = {
            item.nodeid: self.threads.submit(self.run, item) for item in ahead
        }

    def run(self, item: pytest.Function) -> None:
        NOT_WANTED.set(self.not_wanted)
        begun = time.monotonic()
        try:
            item.function.body(item)
        finally:
            item.stash[_SECONDS] = time.monotonic() - begun

    def outcome(self, item: pytest.Function) -> None:
        if item.nodeid in self.futures:
            self.futures[item.nodeid].result()
        else:
            item.function.body(item)

    def close(self) -> None:
        self.not_wanted.set()
        self.threads.shutdown()


@pytest.fixture(scope="module")
def _pool(request: pytest.FixtureRequest) -> Iterator[_Pool]:
    pool = _Pool(
        [
            item
            for item in request.session.items
            if isinstance(item, pytest.Function)
            and item.path == request.path
            and hasattr(item.function, "body")
        ]
    )
    try:
        yield pool
    finally:
        pool.close()


@pytest.fixture
def outcome(_pool: _Pool, request: pytest.FixtureRequest) -> Callable[[], None]:
    """Wait for the test's body, and raise what it raised."""
    return lambda: _pool.outcome(request.node)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None]:  # the generator's return is the report
    report = yield
    if call.when == "call" and _SECONDS in item.stash:
        report.duration = item.stash[_SECONDS]
    return report


@contextmanager
def place() -> Iterator[None]:
    """
    Wait for a place, among all processes that make labs, and hold it.

    A lab takes the processor while it is made, and fifty workers that start at once all start late.
    """
    for number in count():
        with PLACES[number % len(PLACES)].open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                go_on_waiting(0.02)
                continue
            yield
            return
