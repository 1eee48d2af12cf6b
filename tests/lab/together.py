"""
Laws that mostly wait, each in a lab of its own: all of them wait at once.

A node counts as lost after half a minute of silence, and there is no way to make that shorter which
would still be the same law. So the first of these tests starts all that are to be run, each in a
thread, and every test gives the result of its own. Their labs are made one or two at a time, on the
whole machine: this takes the processor, and fifty workers that start at once all start late.
"""

from __future__ import annotations

import fcntl
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from traceback import format_exception

import pytest

from lab.mesh import LabMesh, mesh_of
from lab.redis_server import Persist

Law = Callable[[LabMesh], None]

_LAWS: dict[str, Callable[[], None]] = {}

#: Who holds one of these files makes a lab; the kernel gives it back for whoever dies.
_PLACES = [Path(tempfile.gettempdir(), f"ptzmesh-lab-place-{number}") for number in range(2)]


@contextmanager
def making() -> Iterator[None]:
    """Wait for a place, among all processes that make labs, and hold it."""
    with ExitStack() as stack:
        places = [stack.enter_context(place.open("w")) for place in _PLACES]
        for place in cycle(places):
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)  # between two looks
        yield


@contextmanager
def logs_told(mesh: LabMesh) -> Iterator[None]:
    """Tell the logs with a failure: the lab goes, and they with it."""
    try:
        yield
    except BaseException as exc:
        told = "".join(format_exception(exc))
        raise AssertionError(f"{told}\n{mesh.logs()}") from exc


def together(
    nodes: int, *, persist: Persist = "nothing"
) -> Callable[[Law], Callable[[dict[str, Future[None]]], None]]:
    """Make a test of a law about a mesh of so many nodes, which runs beside the others."""

    def decorate(law: Law) -> Callable[[dict[str, Future[None]]], None]:
        def hold() -> None:
            with ExitStack() as stack:
                with making():
                    mesh = stack.enter_context(mesh_of(nodes, persist=persist))
                stack.enter_context(logs_told(mesh))
                law(mesh)

        def test(under_way: dict[str, Future[None]]) -> None:
            under_way[law.__name__].result()

        _LAWS[law.__name__] = hold
        test.__name__ = law.__name__
        return test

    return decorate


@contextmanager
def begin_chosen(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[None]]]:
    """Begin all laws of the module that this session is to test, until the block ends."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    mine = [item.name for item in items if item.module is request.module]
    chosen = [name for name in mine if name in _LAWS]
    with ThreadPoolExecutor(len(chosen)) as pool:
        yield {name: pool.submit(_LAWS[name]) for name in chosen}
