"""Asks Redis the same of many things in one round trip, and names the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, TypeVar

import redis

T = TypeVar("T")
Named = TypeVar("Named", bound=tuple[Any, ...])


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
