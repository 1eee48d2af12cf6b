"""
Whether this user of Redis may do what a node, a trigger and a collector do.

The operations are queued in a transaction that is then discarded: Redis refuses at once what the
user has no right to, and does nothing of the rest.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.exceptions import NoPermissionError

from coordinator.checks.check import Area, Check, judged
from worker.model.names import RunId
from worker.model.text import some
from worker.wire import keyspace

NAME = "rights"
Command = tuple[str, ...]

NODE, TRIGGER, COLLECTOR = "node", "trigger", "collector"
ROLES = {"n": NODE, "t": TRIGGER, "c": COLLECTOR}

#: What nodes, triggers and collectors need, by their first letters; what scripts do is included.
#: docker/redis/users.acl grants it, and some that only other programs need.
TABLE = {
    "ntc": (
        "exec, multi, ping, time, info server, get {b}, hget {h} f, hmget {h} f, zrange {z} 0 0, "
        "xlen {x}, xinfo groups {x}"
    ),
    "n": (
        "client setname doctor, client info, incrby {t} 1, pttl {t}, pexpire {t} 60000, "
        "hincrbyfloat {h} r 1, hrandfield {h} 1, rpush {l} a, lpush {l} a, ltrim {l} 0 9, "
        "lrange {l} 0 9, blpop {l} 1, hdel {J} f, srem {W} m, zrange {R} 0 0, zrem {R} m, "
        "zremrangebyscore {R} 0 1, lrange {Q} 0 0, lrem {Q} 1 a, blmove {Q} {Q} left right 1, "
        "blpop {Q} 1"
    ),
    "nt": (
        "watch {t}, unwatch, set {t} 1, mget {t}, getrange {t} 0 0, setbit {b} 0 1, "
        "expire {t} 60, exists {t}, type {t}, del {t}, hset {h} f 1, hexists {h} f, hlen {h}, "
        "hincrby {h} n 1, hdel {h} n, zadd {z} 1 m, zscore {z} m, zcard {z}, "
        "zrangebyscore {z} 0 1, zrevrange {z} 0 0, zrem {z} m, zremrangebyscore {z} 0 1, "
        "xadd {x} * f v, xtrim {x} maxlen 1000, memory usage {x}, xpending {x} ptzmesh-doctor, "
        "evalsha 0000000000000000000000000000000000000000 1 {x}, script load return, "
        "hset {J} f 1, hget {J} f, hgetall {J}, expire {J} 60, persist {J}, del {J}, sadd {W} m, "
        "smembers {W}, zadd {R} 1 m, rpush {Q} a, lpush {Q} a, llen {Q}, lpos {Q} a"
    ),
    "t": "unlink {h}, xread streams {x} 0",
    "tc": "xrange {x} - +, xrevrange {x} + -, xinfo consumers {x} ptzmesh-doctor",
    "c": (
        "xgroup create {x} ptzmesh-doctor 0, xgroup createconsumer {x} ptzmesh-doctor c, "
        "xgroup setid {x} ptzmesh-doctor 0, xgroup delconsumer {x} ptzmesh-doctor c, "
        "xinfo stream {x}"
    ),
}
#: One key of each kind; a user may have rights on some only.
KEYS = {
    "t": keyspace.same_plan_key("doctor"),
    "h": keyspace.run_key(RunId("doctor")),
    "b": keyspace.done_key(RunId("doctor"), "ping"),
    "z": keyspace.RUNS,
    "l": keyspace.ready_key("doctor"),
    "x": keyspace.RESULTS,
    "J": keyspace.job_key("doctor"),
    "W": keyspace.queue_workers_key("doctor"),
    "R": "rq:wip:doctor",
    "Q": keyspace.queue_key("doctor"),
}
#: What all operations are put in; of no effect by itself.
TRANSACTION: list[Command] = [("exec",), ("multi",)]


def needed() -> dict[Command, list[str]]:
    """Return operations, each with the roles that need it."""
    return {
        tuple(command.format(**KEYS).split()): [ROLES[letter] for letter in letters]
        for letters, commands in TABLE.items()
        for command in commands.split(", ")
    }


def rights(connection: redis.Redis, url: str, wanted: Sequence[str]) -> Check:
    """Look at what this user may do; it must be fit for all `wanted` roles, or else for one."""
    user = unquote(urlsplit(url).username or "default")
    table = needed()
    answers = _asked(connection, table)
    missing: dict[str, set[str]] = {role: set() for role in ROLES.values()}
    for command, answer in answers.items():
        if isinstance(answer, NoPermissionError):
            for role in table[command]:
                missing[role].add(spelled(command))
    able = [role for role, names in missing.items() if not names]
    unable = [role for role, names in missing.items() if names]
    lacking = sorted(set[str]().union(*(missing[role] for role in wanted or missing)))
    commands = [f"+{name}" for name in _commands(answers, lacking)]
    grants = shlex.join([*_patterns(answers), *commands])
    message = f"user {user} may be {', '.join(able) or 'nothing'}"
    message += f"; not {', '.join(unable)}" if able and unable else ""
    fails = bool(set(wanted) & set(unable)) or not able
    return judged(
        Area.REDIS,
        NAME,
        f"{message}; lacks {some(lacking)}" if fails else message,
        {"user": user, "missing": {role: sorted(missing[role]) for role in unable}},
        fail=fails,
        fix=f"redis-cli ACL SETUSER {shlex.quote(user)} {grants}; "
        "to keep it over a restart: redis-cli ACL SAVE, or CONFIG REWRITE",
    )


def _patterns(answers: Mapping[Command, object]) -> list[str]:
    """Return the patterns of keys that are refused: Redis takes none beside `~*`."""

    def is_open(prefix: str) -> bool:
        tried = [
            answer
            for command, answer in answers.items()
            if any(word.startswith(prefix) for word in command)
        ]
        is_refused = [isinstance(answer, NoPermissionError) for answer in tried]
        return not any(map(_is_of_key, tried)) and not (tried and all(is_refused))

    return [f"~{prefix}*" for prefix in ("ptzmesh:", "rq:") if not is_open(prefix)]


def _commands(answers: Mapping[Command, object], lacking: Sequence[str]) -> list[str]:
    """Return those commands that are refused whatever their keys: not only for some keys."""
    by_key, by_name = set[str](), set[str]()
    for command, answer in answers.items():
        if isinstance(answer, NoPermissionError):
            (by_key if _is_of_key(answer) else by_name).add(spelled(command))
    return [name for name in lacking if name in by_name or name not in by_key]


def _is_of_key(answer: object) -> bool:
    """Whether a key was refused, and not the command, at which Redis looks first."""
    is_refusal = isinstance(answer, NoPermissionError)
    return is_refusal and re.search(r"to access .*\bkeys?\b", str(answer)) is not None


def _asked(connection: redis.Redis, table: Iterable[Command]) -> dict[Command, object]:
    pool: Any = connection.connection_pool
    link = pool.get_connection()
    try:
        answers = _answers(link, TRANSACTION)
        # Without a transaction the rest would be done: then this is all that can be said.
        is_open = not isinstance(answers[-1], NoPermissionError)
        rest = [command for command in table if is_open and command not in TRANSACTION]
        answers += _answers(link, rest)
    finally:
        link.disconnect()  # whatever is queued is discarded
        pool.release(link)
    return dict(zip([*TRANSACTION, *rest], answers, strict=True))


def _answers(link: Any, commands: Sequence[Command]) -> list[object]:
    link.send_packed_command(link.pack_commands(commands))
    answers: list[object] = []
    for _ in commands:
        try:
            answers.append(link.read_response())
        except redis.ResponseError as exc:
            answers.append(exc)
    return answers


def spelled(command: Command) -> str:
    """
    Return a command as an ACL rule names it.

    >>> spelled(("xgroup", "create", "key")), spelled(("get", "key"))
    ('xgroup|create', 'get')
    """
    contained = command[0] in ("client", "xgroup", "xinfo", "memory", "script")
    return "|".join(command[:2]) if contained else command[0]
