"""
Whether this user of Redis may do what a node, a trigger and a collector do.

The operations are queued in a transaction that is then discarded: Redis refuses what the user has
no right to at once, and does nothing of the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import redis

from coordinator.checks.check import Area, Check, judged, some

NAME = "rights"
Command = tuple[str, ...]

NODE, TRIGGER, COLLECTOR = "node", "trigger", "collector"
ROLES = {"n": NODE, "t": TRIGGER, "c": COLLECTOR}

#: Who needs an operation, then the operation, those of scripts included. Its keys are of our own
#: kind or, in capitals, of RQ's.
TABLE = """
ntc ping
ntc time
ntc info server
nt  watch {k}
nt  set {k} 1
ntc get {k}
n   mget {k}
n   getrange {k} 0 0
n   incrby {k} 1
n   setbit {k} 0 1
n   pttl {k}
n   pexpire {k} 60000
nt  expire {k} 60
nt  exists {k}
nt  type {k}
nt  del {k}
nt  hset {k} f 1
ntc hget {k} f
ntc hmget {k} f
ntc hgetall {k}
nt  hlen {k}
nt  hincrby {k} n 1
n   hincrbyfloat {k} r 1
n   hdel {k} n
nt  zadd {k} 1 m
ntc zrange {k} 0 0
nt  zscore {k} m
nt  zrangebyscore {k} 0 1
n   zrevrange {k} 0 0
nt  zrem {k} m
nt  zremrangebyscore {k} 0 1
nt  zremrangebyrank {k} 0 1
n   rpush {k} a
n   lpush {k} a
n   ltrim {k} 0 9
n   lrange {k} 0 9
n   blpop {k} 1
nt  xadd {k} * f v
tc  xlen {k}
tc  xrange {k} - +
tc  xrevrange {k} + -
t   xread streams {k} 0
nt  xtrim {k} maxlen 1000
nt  memory usage {k}
c   xgroup create {k} g 0
c   xgroup setid {k} g 0
c   xgroup delconsumer {k} g c
ntc xinfo groups {k}
c   xinfo consumers {k} g
c   xinfo stream {k}
nt  xpending {k} g
nt  eval return 1 {k}
nt  evalsha 0000000000000000000000000000000000000000 1 {k}
nt  script load return
nt  hset {K} f 1
n   hget {K} f
nt  hgetall {K}
n   hdel {K} f
nt  expire {K} 60
nt  persist {K}
nt  sadd {K} m
nt  smembers {K}
n   srem {K} m
nt  zadd {K} 1 m
n   zrange {K} 0 0
n   zrem {K} m
n   zremrangebyscore {K} 0 1
nt  rpush {K} a
nt  lpush {K} a
n   lrange {K} 0 0
n   lpos {K} a
n   lrem {K} 1 a
n   blmove {K} {K} left right 1
n   blpop {K} 1
nt  del {K}
"""
KEYS = {"k": "ptzmesh:doctor", "K": "rq:doctor"}
#: What nodes and triggers need around their operations; of no effect before there is a transaction.
TRANSACTION: list[Command] = [("exec",), ("multi",)]


def needed() -> dict[Command, list[str]]:
    """Give operations, each with the roles that need it."""
    rows = [line.format(**KEYS).split() for line in TABLE.strip().splitlines()]
    table = {tuple(command): [ROLES[one] for one in roles] for roles, *command in rows}
    return {**table, **{one: [NODE, TRIGGER] for one in TRANSACTION}}


def rights(connection: redis.Redis, url: str, wanted: Sequence[str]) -> Check:
    """Look at what this user may do; it must be fit for all `wanted` roles, or else for one."""
    user = urlsplit(url).username or "default"
    refused = refusals(connection, needed())
    missing = {
        role: sorted({_spelled(one) for one, roles in refused.items() if role in roles})
        for role in ROLES.values()
    }
    able = [role for role in ROLES.values() if not missing[role]]
    unable = [role for role in ROLES.values() if missing[role]]
    looked_at = list(wanted) or list(ROLES.values())
    lacking = sorted({name for role in looked_at for name in missing[role]})
    grants = " ".join(f"+{name}" for name in lacking)
    said = f"user {user} may be " + (", ".join(able) if able else "nothing")
    said += f"; not {', '.join(unable)}" if able and unable else ""
    fails = bool(set(wanted) & set(unable)) or not able
    return judged(
        Area.REDIS,
        NAME,
        f"{said}; lacks {some(lacking)}" if fails else said,
        {"user": user, "missing": {role: missing[role] for role in unable}},
        fail=fails,
        mend=f"redis-cli ACL SETUSER {user} '~ptzmesh:*' '~rq:*' {grants}",
    )


def refusals(
    connection: redis.Redis, table: Mapping[Command, list[str]]
) -> dict[Command, list[str]]:
    """Give what Redis refuses to this user, and to whom that matters."""
    pool: Any = connection.connection_pool
    link = pool.get_connection()
    try:
        answers = _answers(link, TRANSACTION)
        is_open = not _is_refusal(answers[-1])
        # Without a transaction they would be done: then only those that do nothing here are asked.
        rest = [one for one in table if one not in TRANSACTION]
        rest = [one for one in rest if is_open or COLLECTOR in table[one]]
        answers += _answers(link, rest)
    finally:
        link.disconnect()  # whatever is queued is discarded
        pool.release(link)
    asked = zip([*TRANSACTION, *rest], answers, strict=True)
    return {one: table[one] for one, said in asked if _is_refusal(said)}


def _answers(link: Any, commands: Iterable[Command]) -> list[object]:
    listed = list(commands)
    link.send_packed_command(link.pack_commands(listed))
    found: list[object] = []
    for _ in listed:
        try:
            found.append(link.read_response())
        except redis.ResponseError as exc:
            found.append(exc)
    return found


def _is_refusal(answer: object) -> bool:
    return isinstance(answer, redis.exceptions.NoPermissionError) or (
        isinstance(answer, redis.ResponseError) and "NOPERM" in str(answer)
    )


def _spelled(command: Command) -> str:
    """
    Give a command as an ACL rule names it.

    >>> _spelled(("xgroup", "create", "key")), _spelled(("get", "key"))
    ('xgroup|create', 'get')
    """
    contained = command[0] in ("xgroup", "xinfo", "memory", "script")
    return "|".join(command[:2]) if contained else command[0]


def rules(role: str) -> list[str]:
    """
    Give the ACL rules that let a user be a `node`, a `trigger` or a `collector`.

    >>> rules("collector")[:4]
    ['~ptzmesh:*', '~rq:*', '+get', '+hget']
    """
    names = {_spelled(command) for command, roles in needed().items() if role in roles}
    return ["~ptzmesh:*", "~rq:*", *(f"+{name}" for name in sorted(names))]
