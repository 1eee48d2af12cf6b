"""Our Lua scripts, and the clock of the server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgpack
import redis
from redis.exceptions import NoScriptError

from worker.wire.round_trip import Asking, alone, sure


def constants(values: Mapping[str, str | int | Sequence[str]]) -> str:
    """
    Write as Lua what a script knows for good: it is sent with the script, which is once.

    >>> constants({"NODE": "ptzmesh:node:", "ROLES": ["prober"], "ALIVE_S": 30})
    'local NODE = "ptzmesh:node:"\\nlocal ROLES = {"prober"}\\nlocal ALIVE_S = 30\\n'
    """

    def written(value: str | int | Sequence[str]) -> str:
        if isinstance(value, (str, int)):
            return json.dumps(value)  # of ASCII, which is the same in both
        return "{" + ", ".join(map(json.dumps, value)) + "}"

    return "".join(f"local {name} = {written(value)}\n" for name, value in values.items())


def packed_for_lua(value: Any) -> bytes:
    """Pack for Redis' cmsgpack, which knows texts and bytes of the old form of msgpack only."""
    return bytes(msgpack.packb(value, use_bin_type=False))


@cache
def with_digest(names: tuple[str, ...], before: str = "") -> tuple[str, str]:
    """Return our Lua files of these names after `constants`, and what Redis calls that script."""
    # Not by the package's name: a folder `worker` where the program runs would be taken for it.
    lua = Path(__file__).with_name("lua")
    text = before + "".join((lua / f"{name}.lua").read_text(encoding="utf-8") for name in names)
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def script(
    connection: redis.Redis, *names: str, before: str = ""
) -> Callable[[Sequence[str], Sequence[Any]], Any]:
    """Return a callable (keys, arguments) for our Lua files of these names, after `constants`."""

    def call(keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        return alone(connection, asking(names, keys, arguments, before))

    return call


def asking(
    names: Sequence[str], keys: Sequence[str], arguments: Sequence[Any], before: str = ""
) -> Asking[Any]:
    """Ask for the answer of our Lua files of these names; a server that has them not, once more."""
    text, digest = with_digest(tuple(names), before)

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


def load(connection: redis.Redis, wanted: Iterable[tuple[tuple[str, ...], str]]) -> None:
    """Give a server scripts, each as names and `constants`, before they are called."""
    pipeline = connection.pipeline(transaction=False)
    for names, before in wanted:
        pipeline.script_load(with_digest(names, before)[0])
    pipeline.execute()


def redis_seconds(connection: redis.Redis) -> float:
    """Return the server's time as epoch seconds: the one clock that deadlines are on."""
    return alone(connection, asking_seconds())


def asking_seconds() -> Asking[float]:
    """Ask for what `redis_seconds` returns."""
    ((seconds, micros),) = sure((yield lambda pipeline: pipeline.time()))
    return float(seconds + micros / 1e6)
