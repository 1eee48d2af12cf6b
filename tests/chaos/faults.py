"""
The faults: each is begun at a moment, lasts, and is taken back.

A fault says whether it really happened: there may be no work-horse to kill just then.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis
from lab.mesh import children_of
from lab.node import Node
from lab.transfer_runs import node_of

from chaos.mesh import ChaosMesh

LOSS = "kill Redis, data lost"
COPY = "kill Redis, older copy"
#: By how much a clock is set.
STEP_S = 3600
#: A work-horse that measures is waited for so long.
HORSE_S = 1.0
#: Foreign keys that fill a Redis, and how far over its limit it is then.
ROOM_BYTES = 256 * 1024
FILL_KEY = "somebody-elses:"
FILL_BYTES = 32 * 1024


@dataclass
class Fault:
    """
    One fault of a round.

    Attributes:
        kind: A name in `KINDS`.
        at_s: When it begins, in seconds of the round.
        lasts_s: How long until it is taken back.
        node: The node it is done to; the kinds that are about no node do not look at it.
        happened: It was really done.
        undo: What takes it back.
    """

    kind: str
    at_s: float
    lasts_s: float
    node: str
    happened: bool = False
    undo: Callable[[], None] | None = field(default=None, repr=False)

    def begin(self, mesh: ChaosMesh) -> None:
        """Do it."""
        undo = KINDS[self.kind](mesh, self)
        self.happened, self.undo = undo is not None, undo

    def end(self) -> None:
        """Take it back; once more does no harm, should Redis have been away the first time."""
        if self.undo is not None:
            self.undo()

    def __str__(self) -> str:
        """When, what, where and how long."""
        did = "" if self.happened else " (did not happen)"
        return f"{self.at_s:5.1f} s {self.kind} {self.node} for {self.lasts_s:.1f} s{did}"


Begin = Callable[[ChaosMesh, Fault], Callable[[], None] | None]


def _nothing() -> None:
    """Nothing is to be taken back: who was killed is started again by its service manager."""


def _pid(mesh: ChaosMesh, fault: Fault, role: str) -> int | None:
    if role == "supervisor":
        return mesh.workers[fault.node].pid
    if role == "collector":
        return mesh.services["collector"].process.pid
    if role == "horse":
        return _horse_pid(mesh, fault)
    return mesh.child_pid(fault.node, role)


def _horse_pid(mesh: ChaosMesh, fault: Fault) -> int | None:
    give_up_at = time.monotonic() + HORSE_S
    while time.monotonic() < give_up_at:
        prober = mesh.child_pid(fault.node, "prober")
        horses = children_of(prober) if prober else []
        if horses:
            return horses[0]
        time.sleep(0.01)  # between two looks
    return None


def _signal(pid: int | None, number: signal.Signals) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _kill(role: str) -> Begin:
    def begin(mesh: ChaosMesh, fault: Fault) -> Callable[[], None] | None:
        return _nothing if _signal(_pid(mesh, fault, role), signal.SIGKILL) else None

    return begin


def _halt(role: str) -> Begin:
    """Let a process stand still, as on a machine that swaps or whose disk hangs."""

    def begin(mesh: ChaosMesh, fault: Fault) -> Callable[[], None] | None:
        pid = _pid(mesh, fault, role)
        if pid is None or not _signal(pid, signal.SIGSTOP):
            return None
        return lambda: _go_on(pid)

    return begin


def _go_on(pid: int) -> None:
    # The number may be another process's by now, to which this says nothing.
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _kill_trigger(mesh: ChaosMesh, _fault: Fault) -> Callable[[], None] | None:
    running = [one for one in mesh.triggers if one.process.poll() is None]
    if not running:
        return None
    running[-1].was_killed = True
    running[-1].process.kill()
    return _nothing


def _power_cut(mesh: ChaosMesh, fault: Fault) -> Callable[[], None]:
    """Kill all that runs on a node at once, as a power cut; what is on its disk stays."""
    _node(mesh, fault).kill_all()
    for one in mesh.triggers:
        one.was_killed = one.was_killed or one.process.returncode == -signal.SIGKILL
    return _nothing


def _restart_redis(mesh: ChaosMesh, fault: Fault) -> Callable[[], None] | None:
    if mesh.persist == "nothing":
        fault.kind = LOSS
        return _lose_redis(mesh, fault)
    if mesh.lab.redis.process is None:
        return None
    mesh.lab.redis.kill()

    def start() -> None:
        if mesh.lab.redis.process is None:
            mesh.lab.redis.start()

    return start


def _lose_redis(mesh: ChaosMesh, _fault: Fault) -> Callable[[], None] | None:
    """Kill a Redis that keeps nothing; PTZJEPA takes its lockers again."""
    if mesh.lab.redis.process is None:
        return None
    mesh.kill_redis()
    mesh.snapshot.unlink(missing_ok=True)

    def start() -> None:
        if mesh.lab.redis.process is None:
            mesh.start_redis()
            mesh.lockers.hold()

    return start


def _turn_redis_back(mesh: ChaosMesh, _fault: Fault) -> Callable[[], None] | None:
    """Let Redis take a snapshot; at the end it is killed, and comes back with that."""
    try:
        mesh.quick.save()
    except (redis.ConnectionError, redis.TimeoutError):
        return None
    done: list[bool] = []

    def turn_back() -> None:
        if not done and mesh.lab.redis.process is not None and mesh.snapshot.exists():
            mesh.kill_redis()
            mesh.start_redis()
        done.append(True)

    return turn_back


def _halt_redis(mesh: ChaosMesh, _fault: Fault) -> Callable[[], None] | None:
    """Let Redis stand still: connections stay open and nothing answers."""
    process = mesh.lab.redis.process
    if process is None:
        return None
    os.kill(process.pid, signal.SIGSTOP)
    return lambda: _go_on(process.pid)


def _cut(*, silent: bool, everybody: bool = False) -> Begin:
    def begin(mesh: ChaosMesh, fault: Fault) -> Callable[[], None]:
        where = mesh.lab.redis_node if everybody else _node(mesh, fault)
        mesh.lab.cut(where, silent=silent)
        return lambda: mesh.lab.heal(where)

    return begin


def _step(ahead_s: float) -> Begin:
    def begin(mesh: ChaosMesh, fault: Fault) -> Callable[[], None] | None:
        clock = mesh.clocks.get(fault.node)
        if clock is None:
            return None
        clock.step(ahead_s)
        return lambda: clock.step(0)

    return begin


def fill(folder: Path) -> Callable[[], None]:
    """Leave not a byte on a disk; gives what makes room again."""
    file = folder / "somebody-elses"
    with file.open("wb", buffering=0) as opened, suppress(OSError):
        for size in (4096, 1):
            with suppress(OSError):
                while opened.write(b"\1" * size):
                    pass
    return lambda: file.unlink(missing_ok=True)


def _fill_outbox(mesh: ChaosMesh, fault: Fault) -> Callable[[], None] | None:
    folder = mesh.state_dir(fault.node)
    return fill(folder) if folder in mesh.disks else None


def _fill_csv(mesh: ChaosMesh, _fault: Fault) -> Callable[[], None] | None:
    return fill(mesh.csv.parent) if mesh.csv.parent in mesh.disks else None


def _fill_redis(mesh: ChaosMesh, _fault: Fault) -> Callable[[], None] | None:
    """Let somebody else fill Redis up to its maxmemory, which evicts nothing."""
    try:
        mesh.quick.ping()
    except (redis.ConnectionError, redis.TimeoutError):
        return None
    # It answers: from here on it is waited for, as nobody frees what is half full.
    return fill_redis(mesh.connection, mesh.quick)


def fill_redis(connection: redis.Redis, freeing: redis.Redis | None = None) -> Callable[[], None]:
    """Fill Redis with foreign keys until it refuses more; gives what frees it again."""
    by = connection if freeing is None else freeing
    used = int(connection.info("memory")["used_memory"])
    connection.config_set("maxmemory-policy", "noeviction")
    connection.config_set("maxmemory", used + ROOM_BYTES)
    keys: list[str] = []
    with suppress(redis.exceptions.OutOfMemoryError):
        while True:
            keys.append(f"{FILL_KEY}{len(keys)}")
            connection.set(keys[-1], b"\1" * FILL_BYTES)

    # Whoever frees a little must not make room for somebody else.
    used = int(connection.info("memory")["used_memory"])
    connection.config_set("maxmemory", used - ROOM_BYTES)

    def free() -> None:
        # Each by itself: what was sent to a Redis that is slow to answer is done all the same.
        with suppress(redis.ConnectionError, redis.TimeoutError):
            by.config_set("maxmemory", 0)
        with suppress(redis.ConnectionError, redis.TimeoutError):
            by.delete(*keys)

    return free


def _node(mesh: ChaosMesh, fault: Fault) -> Node:
    return node_of(mesh, fault.node)


KINDS: dict[str, Begin] = {
    "kill supervisor": _kill("supervisor"),
    "kill prober": _kill("prober"),
    "kill responder": _kill("responder"),
    "kill work-horse": _kill("horse"),
    "kill collector": _kill("collector"),
    "kill trigger": _kill_trigger,
    "power cut of a node": _power_cut,
    "halt supervisor": _halt("supervisor"),
    "halt prober": _halt("prober"),
    "halt responder": _halt("responder"),
    "halt work-horse": _halt("horse"),
    "halt collector": _halt("collector"),
    "halt Redis": _halt_redis,
    "kill Redis, data kept": _restart_redis,
    LOSS: _lose_redis,
    COPY: _turn_redis_back,
    "node cut off, reset": _cut(silent=False),
    "node cut off, silent": _cut(silent=True),
    "Redis cut off, reset": _cut(silent=False, everybody=True),
    "Redis cut off, silent": _cut(silent=True, everybody=True),
    "clock +1 h": _step(STEP_S),
    "clock -1 h": _step(-STEP_S),
    "disk full under the outbox": _fill_outbox,
    "disk full under the CSV": _fill_csv,
    "Redis at maxmemory": _fill_redis,
}

#: Faults that cost no ping its result: nobody who measures is hurt, or it is made good.
HARMLESS = {
    "kill collector",
    "kill trigger",
    "halt collector",
    "kill responder",
    "halt responder",
    "kill Redis, data kept",
    "halt Redis",
    "clock +1 h",
    "clock -1 h",
    "disk full under the CSV",
    "Redis at maxmemory",
}
