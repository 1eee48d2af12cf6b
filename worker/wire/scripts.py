"""Our Lua scripts, and the clock of the server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import NoScriptError


@cache
def _script_text(name: str) -> str:
    # Not by the package's name: a folder `worker` where the program runs would be taken for it.
    return (Path(__file__).with_name("lua") / f"{name}.lua").read_text(encoding="utf-8")


def script(connection: redis.Redis, *names: str) -> Callable[[Sequence[str], Sequence[Any]], Any]:
    """Return a callable (keys, arguments) for our Lua files of these names, one after another."""
    text = "".join(map(_script_text, names))
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def call(keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        words = (digest, len(keys), *keys, *arguments)
        try:
            return connection.evalsha(*words)
        except NoScriptError:
            # In one round trip; by EVAL it would be one command, which few users may.
            pipeline = connection.pipeline(transaction=False)
            pipeline.script_load(text)
            pipeline.evalsha(*words)
            return pipeline.execute()[-1]

    return call


def redis_seconds(connection: redis.Redis) -> float:
    """Return the server's time as epoch seconds: the one clock that deadlines are on."""
    seconds, micros = connection.time()
    return seconds + micros / 1e6
