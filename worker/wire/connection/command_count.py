"""
How many commands the processes of this node send to Redis, counted where redis-py sends them.

Counted is each command that was written to a connection of `server.connect`: each one of a
pipeline, MULTI and EXEC, the handshake of a new connection, also what the server refuses. Not
counted is what a script does within the server, though INFO counts it there.

The counts are in one anonymous page that all processes of the node share, each in a slot that no
other writes to, so that there is no lock which a killed process could hold.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from functools import cache
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

from worker.wire.connection.away import told_apart

#: Role of a process → its slot. RQ has one work-horse a worker at a time.
SLOTS = {"supervisor": 0, "prober": 1, "responder": 2}
#: Slot of a worker → that of the work-horse it forks; any other fork counts elsewhere.
HORSE = {1: 3, 2: 4}
OTHER = 5

_counts = memoryview(mmap.mmap(-1, 8 * (OTHER + 1))).cast("Q")
_slot = SLOTS["supervisor"]
#: Connections that this process is making, and whether a server has ever let it in.
_connecting: list[Any] = []
_was_let_in = False


def take_slot(role: str) -> None:
    """Say what this process is; one that is forked from it gets a slot of its own."""
    global _slot
    _slot = SLOTS[role]


def _after_fork() -> None:
    global _slot
    _slot = HORSE.get(_slot, OTHER)


os.register_at_fork(after_in_child=_after_fork)


def commands_sent() -> int:
    """Give the commands that this process, its parent and all their children have sent so far."""
    return sum(_counts)


def is_kept_waiting() -> bool:
    """Tell whether this process waits for a server to let it in for the first time."""
    return bool(_connecting) and not _was_let_in


class _Counting(AbstractConnection):
    """
    Counts what was sent, connects once a try, tells what passes from what does not.

    To stand before one of redis-py's own classes.
    """

    #: Commands that are packed and not yet sent.
    _packed = 0

    def connect(self) -> None:
        # redis-py tries to connect again within each try of a command: with one retry four times,
        # which takes four time-outs to say that nobody is there.
        global _was_let_in
        of_commands, self.retry = self.retry, Retry(NoBackoff(), 0)
        _connecting.append(self)
        try:
            super().connect()  # type: ignore[no-untyped-call]  # in redis-py
            _was_let_in = True
        finally:
            _connecting.remove(self)
            self.retry = of_commands

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        super().send_command(*args, **kwargs)  # type: ignore[no-untyped-call]  # in redis-py
        # Between two threads nothing is lost: the interpreter changes threads at calls and loops.
        _counts[_slot] += 1

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)
        except redis.ResponseError as exc:
            if (told := told_apart(exc)) is exc:
                raise
            raise told from exc

    def pack_commands(self, commands: Iterable[Any]) -> Any:
        listed = list(commands)
        self._packed = len(listed)
        return super().pack_commands(listed)  # type: ignore[no-untyped-call]  # in redis-py

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        # Taken first: a connection that must be opened sends its handshake from in here.
        number, self._packed = self._packed, 0
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]
        _counts[_slot] += number


@cache
def _counting(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    return type(f"Counting{kind.__name__}", (_Counting, kind), {})


def count_on(connection: redis.Redis) -> redis.Redis:
    """Have all that goes over a connection counted; gives it back."""
    pool: Any = connection.connection_pool
    pool.connection_class = _counting(pool.connection_class)
    return connection
