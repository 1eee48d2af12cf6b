"""
How many commands the processes of this node ask of Redis, counted where redis-py reads the answers.

Counted is each command that Redis answered, also in a pipeline or with a refusal, but not what a
script does.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from worker.wire.connection import slots, traffic, way
from worker.wire.connection.away import told_apart
from worker.wire.connection.handshake import Greeting

_counts = slots.page("Q")
#: Connections that this process is making, until a server has first let it in, and whether one has.
_connecting: list[Any] = []
_was_let_in = False


def commands_sent() -> int:
    """Count the commands of this process, its parent and all their children so far."""
    return sum(_counts)


def is_kept_waiting() -> bool:
    """Whether this process waits for a server to let it in for the first time."""
    return bool(_connecting) and not _was_let_in


class _Counted(Greeting):
    """
    What stands before each of redis-py's kinds of connection.

    Relied on of redis-py: each answer, also of the handshake and within a pipeline, is read by one
    call of `read_response`, which raises an error that Redis answered; what is sent together goes
    out by one call of `send_packed_command`; `connect` opens the socket and tries again as
    `self.retry` says. `tests/integration/test_usage.py` holds these.
    """

    def connect(self) -> None:
        # redis-py tries to connect again within each try of a command: with one retry four times,
        # which takes four time-outs to say that nobody is there.
        of_commands, self.retry = self.retry, Retry(NoBackoff(), 0)
        # Only that long, as what is listed is not closed with a pool that is dropped after a fork.
        if self._sock is None and not _was_let_in:
            _connecting.append(self)
        try:
            super().connect()
            traffic.opened(self)
        except BaseException:
            self._is_over()
            raise
        finally:
            self.retry = of_commands

    _sent_at: float | None = None

    def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        super().send_packed_command(*args, **kwargs)
        # After it: it connects first where that is due.
        self._sent_at = time.monotonic()

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        traffic.closes(self)
        super().disconnect(*args, **kwargs)  # type: ignore[no-untyped-call]  # in redis-py
        self._is_over()

    def _is_over(self) -> None:
        """Note that this connection is made, or will not be."""
        with suppress(ValueError):
            _connecting.remove(self)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        global _was_let_in
        try:
            answer = super().read_response(*args, **kwargs)
            if self._sent_at is not None:
                way.note(time.monotonic() - self._sent_at)
                self._sent_at = None
        except redis.ResponseError as exc:
            _count()
            if (named := told_apart(exc)) is exc:
                raise
            raise named from exc
        _count()
        if not _was_let_in:
            _was_let_in = True
            _connecting.clear()
        return answer


def _count() -> None:
    # Between two threads nothing is lost: the interpreter changes threads at calls and loops.
    _counts[slots.mine()] += 1


class _CountedTcp(_Counted, Connection):
    pass


class _CountedTls(_Counted, SSLConnection):
    pass


class _CountedUnix(_Counted, UnixDomainSocketConnection):
    pass


_KINDS = {"redis": _CountedTcp, "rediss": _CountedTls, "unix": _CountedUnix}


def counted(url: str, **options: Any) -> redis.Redis:
    """
    Open a lazy connection of which all commands are counted; options are redis-py's, and `terms`.

    Raises:
        ValueError: The URL is not a Redis URL.
    """
    kind = _KINDS.get(urlsplit(url).scheme, Connection)  # redis-py refuses any other scheme
    return redis.Redis.from_url(
        url, connection_class=kind, redis_connect_func=Greeting.greet, protocol=2, **options
    )
