"""
What an error of redis-py means for a person: its cause, and what to do about it.

Matched are Redis' own words (src/server.c and src/config.c of Redis 6.2 to 8, Valkey likewise) and
those of the C library for a connection, as redis-py passes them on. Pure.
"""

from __future__ import annotations

import re

IS_CLUSTER = (
    "is a cluster, over which the mesh cannot spread its keys; name one without cluster mode"
)
#: Redis' or the C library's words → what is the matter, and what helps; `{text}` is the error, and
#: `; ` parts the two, as doctor shows them apart. These pass by themselves:
PASSING = {
    r"\bOOM\b|'maxmemory'": "is full: it uses its maxmemory; free memory or raise maxmemory",
    r"MISCONF|unable to persist": (
        "cannot save to its disk, and takes no writes until it can; see its log, make room there"
    ),
    r"LOADING|loading the dataset": "is loading its data; try again in a moment",
    r"read only replica|READONLY": (
        "is a replica, which takes no writes; name its primary with --redis"
    ),
    r"MASTERDOWN|Link with MASTER": (
        "is a replica that is cut off from its primary; name the primary with --redis"
    ),
    r"NOREPLICAS|Not enough good replicas": (
        "has fewer replicas than it asks for before it takes writes (min-replicas-to-write); "
        "bring them back"
    ),
    r"^BUSY\b|busy running a script": "is busy with somebody's script; wait, or end that script",
    r"^UNBLOCKED": "has just become a replica; try again in a moment",
    r"max number of clients": (
        "has as many clients as it takes; close some, or raise maxclients there"
    ),
    r"Name or service not known|name resolution|No address associated|nodename nor servname": (
        "has a name that does not resolve; check the host of --redis, and this machine's DNS"
    ),
    r"No such file or directory": (
        "has no socket of that name; check that it runs, and `unixsocket` in its configuration"
    ),
    r"connecting to \S+:\d+\. (Permission denied|Operation not permitted|Invalid argument)": (
        "does not answer: {text}; a route or a firewall forbids the way to it: ip route get ADDRESS"
    ),
    r"No route to host|Network is unreachable|Host is unreachable": (
        "does not answer: {text}; check the network and the VPN between, then the host of --redis"
    ),
    r"Timeout connecting|Connection timed out": (
        "does not answer: {text}; check that it runs, that --redis names it, and that no firewall"
        " or VPN between drops what is sent to it"
    ),
    r"Connection refused": (
        "does not answer: nothing listens there, or a firewall refuses; check that it runs, what "
        "it is bound to, and that --redis names it"
    ),
}
#: And these stay until somebody fixes them; looked for after the others.
STAYING = {
    r"^MOVED|CLUSTERDOWN|CROSSSLOT|Hash slot|in cluster mode": IS_CLUSTER,
    # Which knows no users yet, not even the one by whose name we come.
    r"wrong number of arguments for 'auth'": "is version 5 or older; ptzmesh needs 6.2 or newer",
    r"(?i)unknown command.{0,3}(evalsha|eval|script)\b|scripting engine|unsupported command": (
        "runs no Lua scripts, which the mesh needs; load its Lua module, or name the server "
        "itself where a proxy stands before it ({text})"
    ),
    r"WRONGTYPE": (
        "holds something of another program under a name of the mesh's; give the mesh a database "
        "of its own in the URL (…:6379/1), or remove that key ({text})"
    ),
    r"(?i)unknown command": (
        "does not know a command that the mesh needs; it is renamed there, or a proxy stands "
        "before it: name the server itself ({text})"
    ),
    r"DB index is out of range|invalid DB index": (
        "has no database of that number; take a smaller one in the URL (…:6379/0), or raise "
        "`databases` in its configuration"
    ),
    r"protected mode": (
        "answers its own machine only (protected mode); give it a password, or bind it to an "
        "address; see docs/security.md"
    ),
    r"NOPERM|has no permissions|No permissions": (
        "does not let this user do that: {text}; see docs/security.md"
    ),
    r"NOAUTH|Authentication required|HELLO must be called": (
        "asks for a password, and got none; PTZMESH_REDIS_PASSWORD_FILE names the file that has it"
    ),
    r"WRONGPASS|invalid username-password|invalid password": (
        "refused the user or the password, or that user is off there; check the user in the URL, "
        "and PTZMESH_REDIS_PASSWORD_FILE or what else gives the password"
    ),
    r"(?i)Protocol error": (
        "does not speak Redis' language ({text}); check the host and the port of --redis"
    ),
    r"Permission denied": (
        "does not let this user at its socket; join its group, see `unixsocketperm`"
    ),
}

_REFUSED = r"certificate verify failed: (.*{}.*?)\.? \(_ssl"
_ENDED_TLS = (
    "ended the TLS connection: check that it runs; it may want a client certificate of an "
    "authority that it trusts, and not expired: --redis-cert and --redis-key"
)
_NO_TLS = (
    "does not answer in TLS ({text}); if it runs without TLS, it is redis://; else check "
    "that it runs, and that no firewall or VPN between drops what is sent to it"
)
#: Of a way in TLS, these come first: silence has one cause more. A machine without a clock of its
#: own finds certificates too young until it gets the time.
TLS_PASSING = {
    _REFUSED.format("not yet valid"): (
        "has a certificate that is refused ({why}); this machine's clock is behind: date; or that "
        "of who made it was ahead"
    ),
    "EOF|reset by peer|Connection closed": _ENDED_TLS,
    "Timeout|timed out": _NO_TLS,
}
TLS_STAYING = {
    _REFUSED.format("expired"): (
        "has a certificate that is refused ({why}); renew it there; if it is not old, this "
        "machine's clock is wrong: date"
    ),
    _REFUSED.format("mismatch"): (
        "has a certificate that is refused ({why}); the host in the URL must be one that the "
        "certificate names"
    ),
    _REFUSED.format(""): (
        "has a certificate that is refused ({why}); check that --redis-ca names the file of the "
        "authority that signed it"
    ),
    "ALERT|alert": _ENDED_TLS,
    "WRONG_VERSION": _NO_TLS,
    "SSL|X509|No such file": (
        "failed in TLS ({text}); check the files that the Redis URL names, and that they "
        "belong together"
    ),
}


def trouble(error: str, scheme: str) -> tuple[str, bool | None]:
    """
    Say what is the matter with a Redis and what to do, to be put behind its name.

    Args:
        error: What redis-py raised, one line.
        scheme: That of the URL.

    Returns:
        That, and whether it passes by itself; None where the error alone does not say so.

    >>> trouble("DB index is out of range", "redis")[0].partition("; ")[0]
    'has no database of that number'
    >>> trouble("Timeout reading from socket", "redis")
    ('does not answer: Timeout reading from socket; check that it runs and --redis names it', None)
    """
    text = error.rstrip(".")
    tables = [(PASSING, True), (STAYING, False)]
    if scheme == "rediss":
        tables = [(TLS_PASSING, True), (TLS_STAYING, False), *tables]
    for causes, passes in tables:
        for pattern, cause in causes.items():
            if match := re.search(pattern, error):
                return cause.format(text=text, why=match[match.lastindex or 0]), passes
    if scheme == "redis" and re.search("EOF|(?i:alert)|reset by peer|Connection closed", error):
        return (
            f"ended the connection ({text}); check that it runs; if it speaks TLS, it is rediss://",
            None,
        )
    return f"does not answer: {text}; check that it runs and --redis names it", None
