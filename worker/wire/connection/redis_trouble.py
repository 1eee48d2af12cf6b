"""
What an error of redis-py means for a person: its cause, and what to do about it.

Matched are Redis' own words (src/server.c and src/config.c of Redis 6.2 to 8, Valkey likewise) and
those of the C library for a connection, as redis-py passes them on. Pure.
"""

from __future__ import annotations

import re

from worker.wire.connection import redis_url

#: Does it pass by itself, or stay until somebody mends it?
PASSES, STAYS = True, False
#: Redis' or the C library's words → what is the matter, and what helps; `{text}` is the error.
#: The first that is found counts; `; ` parts the two, as doctor shows them apart.
CAUSES = (
    (
        r"\bOOM\b|'maxmemory'",
        "is full: it uses its maxmemory; free memory or raise maxmemory",
        PASSES,
    ),
    (
        r"MISCONF|unable to persist",
        "cannot save to its disk, and takes no writes until it can; see its log, make room there",
        PASSES,
    ),
    (r"LOADING|loading the dataset", "is loading its data; try again in a moment", PASSES),
    (
        r"read only replica|READONLY",
        "is a replica, which takes no writes; name its primary with --redis",
        PASSES,
    ),
    (
        r"MASTERDOWN|Link with MASTER",
        "is a replica that is cut off from its primary; name the primary with --redis",
        PASSES,
    ),
    (
        r"NOREPLICAS|Not enough good replicas",
        "has fewer replicas than it asks for before it takes writes (min-replicas-to-write); "
        "bring them back",
        PASSES,
    ),
    (
        r"^BUSY\b|busy running a script",
        "is busy with somebody's script; wait, or end that script",
        PASSES,
    ),
    (
        r"^MOVED|CLUSTERDOWN|CROSSSLOT|Hash slot",
        "is a cluster, over which the mesh cannot spread its keys; name one without cluster mode",
        STAYS,
    ),
    (
        r"(?i)unknown command.{0,3}(evalsha|eval|script)\b|scripting engine|unsupported command",
        "runs no Lua scripts, which the mesh needs; load its Lua module, or name the server itself "
        "where a proxy stands before it ({text})",
        STAYS,
    ),
    (
        r"WRONGTYPE",
        "holds something of another program under a name of the mesh's; give the mesh a database "
        "of its own in the URL (…:6379/1), or remove that key ({text})",
        STAYS,
    ),
    (
        r"(?i)unknown command",
        "does not know a command that the mesh needs; it is renamed there, or a proxy stands "
        "before it: name the server itself ({text})",
        STAYS,
    ),
    (r"^UNBLOCKED", "has just become a replica; try again in a moment", PASSES),
    (
        r"DB index is out of range|invalid DB index",
        "has no database of that number; take a smaller one in the URL (…:6379/0), or raise "
        "`databases` in its configuration",
        STAYS,
    ),
    (
        r"max number of clients",
        "has as many clients as it takes; close some, or raise maxclients there",
        PASSES,
    ),
    (
        r"protected mode",
        "answers its own machine only (protected mode); give it a password, or bind it to an "
        "address; see docs/security.md",
        STAYS,
    ),
    (
        r"NOPERM|has no permissions|No permissions",
        "does not let this user do that: {text}; see docs/security.md",
        STAYS,
    ),
    (
        r"NOAUTH|Authentication required|HELLO must be called",
        "asks for a password, and got none; PTZMESH_REDIS_PASSWORD_FILE names the file that has it",
        STAYS,
    ),
    (
        r"WRONGPASS|invalid username-password|invalid password",
        "refused the user or the password, or that user is off there; check the user in the URL, "
        "and PTZMESH_REDIS_PASSWORD_FILE or what else gives the password",
        STAYS,
    ),
    (
        r"Protocol Error",
        "does not speak Redis' language ({text}); check the host and the port of --redis",
        STAYS,
    ),
    (
        r"Name or service not known|name resolution|No address associated|nodename nor servname",
        "has a name that does not resolve; check the host of --redis, and this machine's DNS",
        PASSES,
    ),
    (
        r"No such file or directory",
        "has no socket of that name; check that it runs, and `unixsocket` in its configuration",
        PASSES,
    ),
    (
        r"connecting to \S+:\d+\. (Permission denied|Operation not permitted|Invalid argument)",
        "does not answer: {text}; a route or a firewall forbids the way to it: ip route get "
        "ADDRESS",
        PASSES,
    ),
    (
        r"Permission denied",
        "does not let this user at its socket; join its group, see `unixsocketperm`",
        STAYS,
    ),
    (
        r"No route to host|Network is unreachable|Host is unreachable",
        "does not answer: {text}; check the network and the VPN between, then the host of --redis",
        PASSES,
    ),
    (
        r"Timeout connecting|Connection timed out",
        "does not answer: {text}; check that it runs, that --redis names it, and that no firewall "
        "or VPN between drops what is sent to it",
        PASSES,
    ),
    (
        r"Connection refused",
        "does not answer: nothing listens there, or a firewall refuses; check that it runs, what "
        "it is bound to, and that --redis names it",
        PASSES,
    ),
)


def sentence(error: str, where: str) -> str:
    """
    Say what is the matter with a Redis, and what to do; to be put behind its name.

    Args:
        error: What redis-py said, one line.
        where: The URL, without secrets.

    >>> sentence("DB index is out of range", "redis://hub:6379/99").partition("; ")[0]
    'has no database of that number'
    >>> sentence("Timeout reading from socket", "redis://hub:6379")
    'does not answer: Timeout reading from socket; check that it runs and --redis names it'
    """
    text = error.rstrip(".")
    of_tls = redis_url.tls_trouble(text, where)
    # Of a way in TLS, silence has one cause more.
    if of_tls and where.startswith("rediss:"):
        return of_tls
    for pattern, said, _ in CAUSES:
        if re.search(pattern, error):
            return said.replace("{text}", text)
    return of_tls or f"does not answer: {text}; check that it runs and --redis names it"


def passes(error: str, where: str, *, is_of_connection: bool) -> bool:
    """
    Tell whether what is the matter with a Redis passes by itself.

    Args:
        error: What redis-py said, one line.
        where: The URL, without secrets.
        is_of_connection: It is of a connection, not an answer of Redis.

    >>> passes("Error 113 connecting to hub:6379. No route to host.", "redis://hub:6379",
    ...     is_of_connection=True)
    True
    """
    if (of_tls := redis_url.tls_passes(error, where)) is not None:
        return of_tls
    for pattern, _, verdict in CAUSES:
        if re.search(pattern, error):
            return verdict
    return is_of_connection
