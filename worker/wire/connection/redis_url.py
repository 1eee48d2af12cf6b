"""
The one URL that says all about the way to Redis, put together from what an operator sets apart.

A password stands in a variable or in a file, TLS files are named by options; everything that
connects is handed one URL, which is a secret from then on. Connects to nothing.
"""

from __future__ import annotations

import logging
import re
import ssl
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from worker.host.readable import read_file
from worker.model.errors import ConfigError
from worker.wire.connection.redis_query import cleaned

logger = logging.getLogger(__name__)

#: Where Docker puts secrets, which only the container's own user can get at.
CONTAINER_SECRETS = Path("/run/secrets")
MAX_PASSWORD_BYTES = 4096
#: What redis-py reads from the URL's query; the second two are secrets.
CA, CERT, KEY = "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"
PASSWORD, KEY_PASSWORD = "password", "ssl_password"

FORM = (
    "the Redis URL must look like redis://[user[:password]@]host:port/0, rediss://… or unix://…, "
    "with %XX for special characters in the password; or set PTZMESH_REDIS_PASSWORD_FILE"
)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """
    What goes into the URL; None or empty is not given.

    Attributes:
        password: Itself.
        password_file: A file that holds it, in one line.
        ca: PEM file of the authority that signed the server's certificate.
        cert: PEM file of our own certificate.
        key: PEM file of its key, where it is not in `cert`.
    """

    password: str | None = field(default=None, repr=False)
    password_file: str | None = field(default=None, repr=False)
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


URL_VARIABLES = ("PTZMESH_REDIS_URL", "REDIS_URL")
PASSWORD_VARIABLE = "PTZMESH_REDIS_PASSWORD"  # noqa: S105 - a name
#: Of `Credentials`, by the name there.
_VARIABLES = {each.name: f"PTZMESH_REDIS_{each.name.upper()}" for each in fields(Credentials)}
#: All that may say something about Redis: a program that is to use another one gets none of these.
VARIABLES = (*URL_VARIABLES, *_VARIABLES.values())


def credentials_from(environ: Mapping[str, str]) -> Credentials:
    """Read what the environment says."""
    return Credentials(**{name: environ.get(variable) for name, variable in _VARIABLES.items()})


def with_credentials(url: str, given: Credentials) -> str:
    """
    Put a password and TLS files into a URL; the user's name stands in the URL already.

    Raises:
        ConfigError: The URL is invalid; something is given twice; a file is missing, unreadable,
            empty or not what it should be; TLS files without rediss://.

    What is in the URL already may be given again.

    >>> with_credentials("redis://worker@hub:6379/0", Credentials(password="a/b"))
    'redis://worker:a%2Fb@hub:6379/0'
    """
    parts = cleaned(split(url))
    password = _password(given)
    if password:
        if any(unquote(secret) != password for secret in secrets_of(parts, (PASSWORD,))):
            source = f"a file ({given.password_file})" if given.password_file else PASSWORD_VARIABLE
            raise ConfigError(
                f"two passwords of Redis are given: in its URL and by {source}; keep one"
            )
        login, _, host = parts.netloc.rpartition("@")
        user = login.partition(":")[0]
        parts = parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}")
    return _joined(_with_tls(parts, given))


def plain(url: str) -> str:
    """
    Return a URL with no options but those that we take.

    Raises:
        ConfigError: It is no URL of Redis, or an option changes its meaning.
    """
    parts = cleaned(split(url))
    _check_pair(parse_qs(parts.query), "ssl_keyfile of the Redis URL")
    return _joined(parts)


def split(url: str) -> SplitResult:
    """
    Split a URL of Redis.

    Raises:
        ConfigError: It is invalid. The message repeats nothing of it, as it may be full of secrets.
    """
    try:
        url.encode()  # a variable may hold bytes that are no text
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it is read when it is asked for
        unquote(parts.hostname or "").encode("idna")  # as it is looked up: no label empty or long
    except ValueError:
        raise ConfigError(FORM) from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ConfigError(FORM)
    # A password with a bare '/', '?' or '#' ends the host early, and what follows has the '@'.
    rest = parts.path + parts.query + parts.fragment
    if parts.fragment or ("@" in rest and parts.scheme != "unix"):
        raise ConfigError(FORM)
    # redis-py takes any other path for database 0.
    if parts.scheme != "unix" and not re.fullmatch(r"/?|/\d+", parts.path):
        raise ConfigError(FORM)
    return parts


def secrets_of(
    parts: SplitResult, names: tuple[str, ...] = (PASSWORD, KEY_PASSWORD)
) -> tuple[str, ...]:
    """Return the secrets in a URL as they are written there: its password, those in its query."""
    query = (option.partition("=") for option in parts.query.split("&"))
    secrets = (parts.password, *(value for name, _, value in query if name in names))
    return tuple(filter(None, secrets))


def _password(given: Credentials) -> str | None:
    if not given.password_file:
        return given.password
    if given.password:
        raise ConfigError(
            f"two passwords of Redis are given: by {PASSWORD_VARIABLE} and by a file "
            f"({given.password_file}); keep one"
        )
    path = Path(given.password_file)
    try:
        text = _read(path, "password file").decode()
    except UnicodeDecodeError:
        raise ConfigError(f"password file ({path}) is not UTF-8 text") from None
    password = text.removesuffix("\n").removesuffix("\r")
    if not password or any(ord(sign) < 32 for sign in password) or len(text) > MAX_PASSWORD_BYTES:
        raise ConfigError(f"password file ({path}) must hold the password in one line, and no more")
    _warn_if_public(path, "password file")
    return password


def _with_tls(parts: SplitResult, given: Credentials) -> SplitResult:
    files = {CA: given.ca, CERT: given.cert, KEY: given.key}
    named = {name: str(Path(file).absolute()) for name, file in files.items() if file}
    if named and parts.scheme != "rediss":
        raise ConfigError(
            f"TLS file ({next(iter(named.values()))}) is of no use with {parts.scheme}://; "
            "a Redis with TLS is rediss://"
        )
    query = parse_qs(parts.query)
    for name, file in named.items():
        if query.get(name, [file]) != [file]:
            raise ConfigError(
                f"two files ({query[name][0]} and {file}) are given as {name} of Redis; keep one"
            )
    # Those that the URL itself names, too: redis-py looks at them only as it connects.
    used = {name: query[name][0] for name in files if name in query} | named
    _check_pair(used, used.get(KEY, ""))
    _check_tls(used, query.get(KEY_PASSWORD, [None])[0])
    more = [f"{name}={quote(file, safe='/')}" for name, file in named.items() if name not in query]
    return parts._replace(query="&".join([parts.query, *more]).strip("&"))


def _check_pair(used: Collection[str], key: str) -> None:
    if KEY in used and CERT not in used:
        raise ConfigError(f"TLS key ({key}) needs its certificate: --redis-cert FILE")


def _check_tls(named: Mapping[str, str], key_password: str | None) -> None:
    """Load the files as a connection will, so that the error names a wrong one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, kind in ((CA, "CA file"), (CERT, "TLS certificate"), (KEY, "TLS key")):
        if name in named:
            _read(Path(named[name]), kind)
    if CA in named:
        try:
            context.load_verify_locations(named[CA])
        except ssl.SSLError:
            raise ConfigError(f"CA file ({named[CA]}) holds no certificate in PEM form") from None
    if CERT not in named:
        return
    cert, key = named[CERT], named.get(KEY)
    asked: list[bool] = []

    def passphrase() -> str:
        asked.append(True)  # else OpenSSL asks on the terminal, which a service does not have
        return key_password or ""

    try:
        context.load_cert_chain(cert, key, passphrase)
    except (ssl.SSLError, ValueError):
        # OpenSSL's own words name no file.
        files = f"TLS certificate ({cert}) and key ({key or 'in it'})"
        if asked:
            raise ConfigError(f"{files}: the key has a passphrase; give one without") from None
        raise ConfigError(f"{files} are not PEM, or do not belong together") from None
    _warn_if_public(Path(key or cert), "TLS key")


def _read(path: Path, kind: str) -> bytes:
    try:
        data = read_file(path)
    except OSError as exc:
        raise ConfigError(f"{kind} ({path}) cannot be read: {exc.strerror}") from None
    if not data.strip():
        raise ConfigError(f"{kind} ({path}) is empty")
    return data


def _warn_if_public(path: Path, kind: str) -> None:
    if path.stat().st_mode & stat.S_IROTH and CONTAINER_SECRETS not in path.absolute().parents:
        logger.warning(
            "%s (%s) can be read by every user of this machine: chmod o-r it", kind, path
        )


def _joined(parts: SplitResult) -> str:
    # `geturl` leaves the slashes of an empty host out, which redis-py needs: unix:///run/redis.sock
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{parts.path}{query}"
