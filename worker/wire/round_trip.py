"""
Asks Redis many things in one round trip: the same of many, or what is independent.

What depends on an answer is asked in steps, each a round trip (`Asking`); several such are carried
out in step with each other (`together`), so that they take no longer than the longest of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import redis

T = TypeVar("T")
Named = TypeVar("Named", bound=tuple[Any, ...])
#: Queues commands.
Ask = Callable[[redis.client.Pipeline], object]
#: Yields what it asks in a step, and is sent the answers, among them errors that Redis answered.
Asking = Generator[Ask, list[Any], T]


def alone(connection: redis.Redis, asking: Asking[T]) -> T:
    """Carry an asking out, a round trip for each of its steps; return its result."""
    answers: Any = None  # what a generator is sent first
    while True:
        try:
            ask = asking.send(answers)
        except StopIteration as ended:
            result: T = ended.value
            return result
        pipeline = connection.pipeline(transaction=False)
        ask(pipeline)
        answers = pipeline.execute(raise_on_error=False)


def joined(*askings: Asking[Any]) -> Asking[list[Any]]:
    """Ask in step with each other, in as many steps as the longest; return all results."""
    results: dict[int, Any] = {}
    answers: dict[int, list[Any]] = {}
    while len(results) < len(askings):
        asks: dict[int, Ask] = {}
        for at, asking in enumerate(askings):
            if at not in results:
                try:
                    asks[at] = asking.send(answers[at]) if at in answers else next(asking)
                except StopIteration as ended:
                    results[at] = ended.value
        if not asks:
            break
        counts: dict[int, int] = {}

        def ask_all(
            pipeline: redis.client.Pipeline, asks: Any = asks, counts: Any = counts
        ) -> None:
            for at, ask in asks.items():
                before = len(pipeline)
                ask(pipeline)
                counts[at] = len(pipeline) - before

        answered = iter((yield ask_all))
        answers = {at: list(islice(answered, count)) for at, count in counts.items()}
    return [results[at] for at in range(len(askings))]


def second(asking: Asking[T]) -> Asking[T]:
    """Ask from the second step on: the first goes out with the greeting, if it only looks."""
    yield lambda _pipeline: None
    return (yield from asking)


def together(connection: redis.Redis, *askings: Asking[Any]) -> list[Any]:
    """Carry several askings out in step with each other; return their results."""
    return alone(connection, joined(*askings))


def sure(answers: list[Any]) -> list[Any]:
    """Let answers pass that are none of them an error; raise the first that is one."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def asking_sure(ask: Ask) -> Asking[list[Any]]:
    """Ask in one step, of which no answer may be an error."""
    return sure((yield ask))


def in_parts(things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Part what is too much for one round trip, or for one script."""
    return (things[start : start + size] for start in range(0, len(things), size))


def at_once(connection: redis.Redis, ask: Ask) -> list[Any]:
    """Ask in one round trip, of which no answer may be an error; return the answers."""
    return alone(connection, asking_sure(ask))


def ask_each(
    connection: redis.Redis,
    things: Iterable[T],
    ask: Callable[[redis.client.Pipeline, T], object],
    named: type[Named],
) -> list[Named]:
    """
    Send the commands of all things at once; return the answers of each, in the same order.

    Args:
        things: What is asked about.
        ask: Queues the commands of one thing.
        named: A NamedTuple with a field for each of these commands, in their order.
    """
    pipeline, things = connection.pipeline(transaction=False), list(things)
    for thing in things:
        ask(pipeline, thing)
    answers = iter(pipeline.execute())
    fields: tuple[str, ...] = named._fields  # type: ignore[attr-defined]  # every NamedTuple has it
    return [named(*islice(answers, len(fields))) for _ in things]
