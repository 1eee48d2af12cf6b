"""
What is said to a server before the first command, and with it: no round trip of its own.

redis-py says its greetings one after the other and waits for each answer: protocol, maintenance,
name and version of the library, database; over a satellite that is four seconds. Here they are one
packet (who we are, which database, and what the server is), and where the first commands only look
they are in that packet, too. So whoever is refused has changed nothing: neither in a database that
is not the one that was meant, nor as a user that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import redis
from redis.connection import AbstractConnection

from worker.model.errors import PtzmeshError

#: Commands that change nothing; sent before it is known whether the greeting was accepted.
LOOKS = frozenset({
    "EXISTS", "GET", "GETRANGE", "HGET", "HMGET", "INFO", "LLEN", "MEMORY USAGE", "PING",
    "SMEMBERS", "TIME", "XINFO GROUPS", "XINFO STREAM", "XLEN", "XRANGE", "XREVRANGE", "ZCARD",
    "ZRANGE", "ZREVRANGE", "ZSCORE",
})  # fmt: skip
#: Of INFO, what says whether a mesh can live there; Redis 6.2 takes one section a command.
SECTIONS = ("server", "memory", "cluster")

#: redis-py would look up its own version for each connection, in milliseconds, to say it in a
#: greeting that is not ours; those without this option know it already.
NO_DRIVER: Mapping[str, Any] = {"driver_info": None} if hasattr(redis, "DriverInfo") else {}

Command = Sequence[Any]


@dataclass
class Terms:
    """
    What the first connection of a program is asked of, once.

    Attributes:
        check: Called with what INFO says; raises where a mesh cannot live there.
        explain: Turns what keeps the first answer from coming into what is raised.
        are_met: The server has answered, and it will do.
    """

    check: Callable[[Mapping[str, str]], None]
    explain: Callable[[redis.RedisError], Exception]
    are_met: bool = field(default=False, init=False)


class Greeting(AbstractConnection):
    """
    Says what must be said first together with the first command, else in one round trip.

    Relied on of redis-py: `redis_connect_func` is called in place of its own greetings, once the
    socket is open; every command goes out by `send_packed_command`, after it was packed by
    `send_command` or `pack_commands`; a command that failed is tried again on the same connection.
    `tests/integration/test_round_trips.py` holds them.

    Attributes:
        is_fresh: Nothing has been heard of the server since the socket was opened.
    """

    is_fresh = _asked = False
    _terms: Terms | None = None
    _unsaid: Sequence[Command] = ()
    _unheard: Sequence[Command] = ()
    _only_looks = False
    _refused: Exception | None = None

    def __init__(self, *args: Any, terms: Terms | None = None, **kwargs: Any) -> None:
        """Take redis-py's options, and what the server is to be asked."""
        self._terms = terms
        super().__init__(*args, **{**NO_DRIVER, **kwargs})

    def connect(self) -> None:
        """Open the socket; what was wrong before is tried again."""
        self._refused = None
        try:
            super().connect()  # type: ignore[no-untyped-call]  # in redis-py
        except redis.RedisError as exc:
            self._raise(exc)

    def greet(self) -> None:
        """Take the place of redis-py's own greetings: note what is to be said, once connected."""
        self._parser.on_connect(self)
        self.is_fresh, self._asked = True, False
        self._unsaid, self._unheard = list(self._greetings()), ()

    def _greetings(self) -> Iterable[Command]:
        if self.password or self.username:
            # By name: a default user that needs no password takes any.
            yield "AUTH", self.username or "default", self.password or ""
        if self.client_name:
            yield "CLIENT", "SETNAME", self.client_name
        if self.db:
            yield "SELECT", self.db
        if self._terms is not None and not self._terms.are_met:
            yield from (("INFO", section) for section in SECTIONS)

    def can_read(self, *args: Any, **kwargs: Any) -> bool:
        """Whether an answer is left over: not where nothing was asked, but a refusal may wait."""
        return self._asked if self.is_fresh else bool(super().can_read(*args, **kwargs))

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        """Send one command, and note whether it only looks."""
        self._only_looks = _looks(args)
        super().send_command(*args, **kwargs)  # type: ignore[no-untyped-call]  # in redis-py

    def pack_commands(self, commands: Iterable[Command]) -> Any:
        """Pack several commands, and note whether all of them only look."""
        listed = list(commands)
        self._only_looks = all(map(_looks, listed))
        return super().pack_commands(listed)  # type: ignore[no-untyped-call]  # in redis-py

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send commands; what is still to be said goes first."""
        only_looks, self._only_looks = self._only_looks, False
        if self._refused is not None:
            raise self._refused  # the same command, tried again
        if not self._sock:
            self.connect()
        self._asked = True
        if self._unsaid:
            said, self._unsaid = self._unsaid, ()
            self._unheard = said
            packed = b"".join(super().pack_commands(said))  # type: ignore[no-untyped-call]  # in redis-py
            if only_looks:
                rest = [command.encode()] if isinstance(command, str) else command
                command = [b"".join([packed, *rest])]
            else:
                super().send_packed_command([packed], check_health)  # type: ignore[no-untyped-call]  # in redis-py
                self._hear()
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]  # in redis-py

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read an answer; one to what was said first is looked at before."""
        if self._refused is not None:
            raise self._refused  # a pipeline reads on
        if self._unheard:
            self._hear()
        try:
            answer = super().read_response(*args, **kwargs)
        except redis.ResponseError:
            self.is_fresh = False
            raise
        except redis.RedisError as exc:
            if not self.is_fresh:
                raise
            self._raise(exc)
        self.is_fresh = False
        return answer

    def _hear(self) -> None:
        """Read the answers to the greetings; the first that is a refusal ends the connection."""
        greetings, self._unheard = self._unheard, ()
        info: dict[str, str] = {}
        is_judged = False
        try:
            for name, *_ in greetings:
                answer = self.read_response()
                if name == "INFO":
                    info |= _lines(answer)
                    is_judged = True
            if is_judged and self._terms is not None:
                self._terms.check(info)
                self._terms.are_met = True
        except BaseException as exc:
            # Where this is interrupted answers are left, to be taken for those to what comes next.
            self.disconnect()  # type: ignore[no-untyped-call]  # in redis-py
            if isinstance(exc, (redis.RedisError, PtzmeshError)):
                self._raise(exc)
            raise

    def _raise(self, exc: Exception) -> NoReturn:
        """Raise what is wrong, now and until the next connect; explained if never let in."""
        self._refused = exc
        if self._terms is None or self._terms.are_met or not isinstance(exc, redis.RedisError):
            raise exc
        self._refused = self._terms.explain(exc)
        raise self._refused from exc


def _looks(command: Command) -> bool:
    name = str(command[0]).upper()
    return name in LOOKS or " ".join((name, *map(str, command[1:2]))).upper() in LOOKS


def _lines(info: object) -> dict[str, str]:
    """
    Read an answer to INFO; nothing where it is none, of whatever is not Redis.

    >>> _lines(b"# Server\\r\\nredis_version:7.0.15\\r\\n")
    {'redis_version': '7.0.15'}
    """
    if not isinstance(info, bytes):
        return {}
    pairs = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    return {name: value for name, sign, value in pairs if sign}
