"""
The options after the `?` of a Redis URL, which other programs share with us.

redis-py hands each of them to its connection, so that one that is meant for another program ends in
a TypeError, and `decode_responses` would give us text for bytes. Pure, but for what is logged.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import cache
from urllib.parse import SplitResult, parse_qsl, quote

from worker.model.errors import ConfigError

logger = logging.getLogger(__name__)

#: Taken of a URL, whatever its scheme, and of one with TLS only.
TAKEN = frozenset({"db", "password", "username", "client_name"})
TLS_TAKEN = frozenset({
    "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_cert_reqs",
    "ssl_check_hostname",
})  # fmt: skip
#: A URL that names such a file wants TLS, which is a matter of the scheme.
TLS_FILES = frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"})
#: Means another server, another database or another way to it.
REFUSED: Mapping[str, str] = {
    "virtual_host": "the database is the path of the URL (…:6379/0), or db=0 after a socket's path",
    "master_name": "Sentinel is not spoken; name the primary itself",
    "sentinel_kwargs": "Sentinel is not spoken; name the primary itself",
    "ssl": "a Redis with TLS is rediss://",
    "tls": "a Redis with TLS is rediss://",
    "host": "the host stands before the path of the URL",
    "port": "the port stands behind the host in the URL",
    "path": "a socket is unix:///path/of/the/socket",
    "cluster": "name one server without cluster mode",
}
#: Of no effect where they say what the scheme does.
TLS_SWITCHES = frozenset({"ssl", "tls"})
#: Redis refuses any other (CLIENT SETNAME).
_CLIENT_NAME = re.compile(r"[!-~]*")
#: As Celery writes it as well.
_CERT_REQS = re.compile(r"(?i)(?:CERT_)?(none|optional|required)")
_BOOLEAN = re.compile(r"(?i)true|false|yes|no|1|0")


def cleaned(parts: SplitResult) -> SplitResult:
    """
    Keep of a URL's options what makes sense here; log once what is left out, by name alone.

    Raises:
        ConfigError: One changes which Redis is meant, or has a value that makes no sense.
    """
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    kept = [
        (name, _checked(name, value, parts))
        for name, value in pairs
        if _is_taken(name, value, parts)
    ]
    if kept == pairs:
        return parts
    if unused := {name for name, _ in pairs} - {name for name, _ in kept}:
        _log_once(tuple(sorted(unused)))
    return parts._replace(query="&".join(f"{name}={quote(v, safe='/')}" for name, v in kept))


def _is_taken(name: str, value: str, parts: SplitResult) -> bool:
    if name in TLS_SWITCHES and _switches(value, on=parts.scheme == "rediss"):
        return False  # it says what the scheme does
    if name in REFUSED:
        raise ConfigError(f"the Redis URL's option {name} cannot be followed: {REFUSED[name]}")
    if name in TLS_FILES and parts.scheme != "rediss":
        raise ConfigError(
            f"the Redis URL's option {name} is of no use with {parts.scheme}://; "
            "a Redis with TLS is rediss://"
        )
    return name in TAKEN or (name in TLS_TAKEN and parts.scheme == "rediss")


def _switches(value: str, *, on: bool) -> bool:
    return _BOOLEAN.fullmatch(value) is not None and on is (value.lower() in ("true", "yes", "1"))


def _checked(name: str, value: str, parts: SplitResult) -> str:
    if name == "db":
        path = parts.path.strip("/") if parts.scheme != "unix" else ""
        if not re.fullmatch(r"[0-9]{1,9}", value) or path not in ("", value):
            raise ConfigError(
                "the Redis URL's option db must be a number, and that of its path; keep one"
            )
    if name == "ssl_cert_reqs":
        known = _CERT_REQS.fullmatch(value)
        if known is None:
            raise ConfigError(
                "the Redis URL's option ssl_cert_reqs must be none, optional or required"
            )
        return known[1].lower()
    if name == "ssl_check_hostname" and not _BOOLEAN.fullmatch(value):
        raise ConfigError("the Redis URL's option ssl_check_hostname must be true or false")
    if name == "client_name" and not _CLIENT_NAME.fullmatch(value):
        raise ConfigError("the Redis URL's option client_name must be printable ASCII, no spaces")
    return value


@cache
def _log_once(names: tuple[str, ...]) -> None:
    shown = ", ".join(name[:40] if name.isprintable() else repr(name)[:40] for name in names)
    logger.warning("left out of the Redis URL, as it is for other programs: %s", shown)
