"""Our Lua scripts, and the clock of the server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import NoScriptError

from worker.wire.round_trip import Asking, alone, sure


@cache
def _script(names: tuple[str, ...]) -> tuple[str, str]:
    # Not by the package's name: a folder `worker` where the program runs would be taken for it.
    lua = Path(__file__).with_name("lua")
    text = "".join((lua / f"{name}.lua").read_text(encoding="utf-8") for name in names)
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def script(connection: redis.Redis, *names: str) -> Callable[[Sequence[str], Sequence[Any]], Any]:
    """Return a callable (keys, arguments) for our Lua files of these names, one after another."""

    def call(keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        return alone(connection, asking(names, keys, arguments))

    return call


def asking(names: Sequence[str], keys: Sequence[str], arguments: Sequence[Any]) -> Asking[Any]:
    """Ask for the answer of our Lua files of these names; a server that has them not, once more."""
    text, digest = _script(tuple(names))

    def ask(pipeline: redis.client.Pipeline) -> None:
        pipeline.evalsha(digest, len(keys), *keys, *arguments)

    def ask_again(pipeline: redis.client.Pipeline) -> None:
        # In one round trip; by EVAL it would be one command, which few users may.
        pipeline.script_load(text)
        ask(pipeline)

    answers = yield ask
    if isinstance(answers[0], NoScriptError):
        answers = yield ask_again
    return sure(answers)[-1]


def redis_seconds(connection: redis.Redis) -> float:
    """Return the server's time as epoch seconds: the one clock that deadlines are on."""
    seconds, micros = connection.time()
    return seconds + micros / 1e6


def asking_seconds() -> Asking[float]:
    """Ask for what `redis_seconds` returns."""
    ((seconds, micros),) = sure((yield lambda pipeline: pipeline.time()))
    return float(seconds + micros / 1e6)
