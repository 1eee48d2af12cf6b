"""
Laws and rounds that mostly wait, each in a lab of its own: all of them wait at once.

The first test starts all that this session is to test, and every test gives the result of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from lab.together import logs_told, making

from chaos.mesh import ChaosMesh, chaos_mesh
from chaos.rounds import SHORT, Survived, draw, hold

#: Under this name a test reports the line of its round.
SURVIVED = "survived"

Law = Callable[[ChaosMesh], None]

_LAWS: dict[str, Callable[[], None]] = {}
_ROUND = re.compile(r".*\[(\d+)\]")


class UnderWay:
    """
    What was begun; use as a context manager.

    Attributes:
        seed: What rounds are drawn from.
    """

    def __init__(self, names: Iterable[str], seed: int) -> None:
        """Begin these tests: laws, and rounds by their numbers in brackets."""
        self.seed = seed
        names = list(names)
        numbers = [int(found[1]) for found in map(_ROUND.fullmatch, names) if found]
        self._pool = ThreadPoolExecutor(max(1, len(names)))
        laws = [name for name in names if name in _LAWS]
        self.laws = {name: self._pool.submit(_LAWS[name]) for name in laws}
        self.rounds: dict[int, Future[Survived]] = {
            number: self._pool.submit(hold, draw(seed, number, SHORT)) for number in numbers
        }

    def __enter__(self) -> UnderWay:
        """Give itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for what nobody asked for."""
        self._pool.shutdown()


def together(nodes: int, **options: Any) -> Callable[[Law], Callable[[UnderWay], None]]:
    """Make a test of a law about a mesh of so many nodes; options as those of `chaos_mesh`."""

    def decorate(law: Law) -> Callable[[UnderWay], None]:
        def hold_law() -> None:
            with ExitStack() as stack:
                with making():
                    mesh = stack.enter_context(chaos_mesh(nodes, **options))
                stack.enter_context(logs_told(mesh))
                law(mesh)

        def test(under_way: UnderWay) -> None:
            under_way.laws[law.__name__].result()

        _LAWS[law.__name__] = hold_law
        test.__name__ = law.__name__
        return test

    return decorate
