"""
The process on a node: registers, heartbeats, keeps its RQ workers alive.

One supervising process, two children: the *prober* measures, the *responder* answers tests while
the prober is busy. Children are forked before any connection or thread exists, and die with their
supervisor.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import multiprocessing
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import FrameType
from typing import IO, Any

import redis
from rq import Worker
from rq.job import Job

from worker import wire
from worker.errors import ConfigError
from worker.jobs import AllowList, NodeContext, allow_listed, enqueue_advance
from worker.outbox import Outbox

logger = logging.getLogger(__name__)

#: RQ blocks for worker_ttl - 15 s in BLPOP and then refreshes its worker record (4 commands).
RQ_WORKER_TTL_S = 40
MAX_BACKOFF_S = 30.0
#: SIGTERM is answered within 10 s: this long for the job in hand, the rest to deregister.
STOP_GRACE_S = 7.0
PR_SET_PDEATHSIG = 1

AllowListMaker = Callable[[NodeContext], AllowList]


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """What a node's process is started with; `address` None means "as Redis sees us"."""

    name: str
    redis_url: str = field(repr=False)
    address: str | None
    labels: Mapping[str, str]
    state_dir: Path
    version: str


class QuietWorker(Worker):
    """RQ's worker without its pub/sub command channel: nobody may stop a node through Redis."""

    def subscribe(self) -> None:
        """Open no channel; saves a connection and a thread as well."""
        self.pubsub_thread = None

    def unsubscribe(self) -> None:
        """Nothing was opened."""


class Agent:
    """Supervises one node until it is told to stop."""

    def __init__(self, settings: AgentSettings, make_allow_list: AllowListMaker) -> None:
        """Take the settings, and what makes the allow-list from the node's context."""
        self.settings = settings
        self.make_allow_list = make_allow_list
        self.stopping = multiprocessing.get_context("fork").Event()
        self.children: dict[str, Child] = {}
        self.outbox = Outbox(settings.state_dir / f"{settings.name}.outbox")
        self.record: dict[str, str] = {}
        self.record_sent = False
        self.clock_offset_ms = 0.0

    def run(self) -> None:
        """
        Register, then heartbeat and supervise until SIGTERM or SIGINT.

        Raises:
            ConfigError: Another live process has this name.
            RedisUnavailable: Redis cannot be used at the start.
        """
        lock = _lock(self.settings)
        connection = wire.connect(self.settings.redis_url)
        wire.check_server(connection, self.settings.redis_url)
        self.owner = _owner_token(lock)
        self.record = self._describe(connection)
        self._register(connection)
        connection.close()  # children are forked without a socket of ours
        self._start_children()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        logger.info("node %s at %s is ready", self.settings.name, self.record["address"])
        self._supervise(connection)
        self._stop(connection)

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping.set()

    def _describe(self, connection: redis.Redis) -> dict[str, str]:
        address = self.settings.address or _local_address(connection)
        if address is None:
            raise ConfigError("the node's address is not known: say --address")
        return {
            "address": address,
            "labels": json.dumps(dict(self.settings.labels), sort_keys=True),
            "version": self.settings.version,
            "pid": str(os.getpid()),
            "host": socket.gethostname(),
        }

    def _register(self, connection: redis.Redis) -> None:
        answer = self._beat(connection)
        if answer is None:
            raise ConfigError(
                f"node name ({self.settings.name}) is taken by a live node; choose another --name, "
                f"or wait {wire.ALIVE_S} s if that node was killed"
            )

    def _beat(self, connection: redis.Redis) -> list[str] | None:
        """Send one heartbeat: ids of overdue runs, or None when the name is another's."""
        fields = [part for pair in self._fields().items() for part in pair]
        sent = time.time()
        keys = [wire.NODES, wire.node_key(self.settings.name), wire.RUNS_OPEN]
        arguments = [self.settings.name, self.owner, wire.ALIVE_S, wire.NODE_TTL_S, *fields]
        answer = wire.script(connection, "heartbeat")(keys, arguments)
        if not answer[0]:
            return None
        middle = (sent + time.time()) / 2
        self.clock_offset_ms = (middle - int(answer[1]) - int(answer[2]) / 1e6) * 1e3
        return [run.decode() for run in answer[3]]

    def _fields(self) -> dict[str, str]:
        return {**self.record, "clock_offset_ms": f"{self.clock_offset_ms:.3f}"}

    def _start_children(self) -> None:
        name = self.settings.name
        context = NodeContext(
            name, self.settings.redis_url, self.outbox.path, self.stopping.is_set
        )
        job_class = allow_listed(self.make_allow_list(context))
        queues = {
            "prober": [wire.node_queue(name), wire.CONTROL_QUEUE],
            "responder": [wire.serve_queue(name)],
        }
        for role, names in queues.items():
            self.children[role] = Child(role, name, self.settings.redis_url, names, job_class)
            self.children[role].keep_alive()

    def _supervise(self, connection: redis.Redis) -> None:
        next_beat = time.monotonic() + wire.HEARTBEAT_S
        while not self.stopping.wait(min(1.0, max(0.0, next_beat - time.monotonic()))):
            for child in self.children.values():
                child.keep_alive()
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + wire.HEARTBEAT_S
                self._heartbeat(connection)

    def _heartbeat(self, connection: redis.Redis) -> None:
        try:
            overdue = self._beat(connection)
            if overdue is None:
                logger.error("another node took the name %s; this one stops", self.settings.name)
                self.stopping.set()
                return
            for run in {*overdue, *self.outbox.resend(connection)}:
                enqueue_advance(connection, run)
        except redis.RedisError as exc:
            logger.warning("heartbeat not sent: %s", exc)

    def _stop(self, connection: redis.Redis) -> None:
        for child in self.children.values():
            child.stop(STOP_GRACE_S)
        try:
            pipeline = connection.pipeline()
            pipeline.zrem(wire.NODES, self.settings.name)
            pipeline.hdel(wire.node_key(self.settings.name), "owner")
            pipeline.execute()
        except redis.RedisError as exc:
            logger.warning("could not deregister: %s", exc)
        logger.info("node %s stopped", self.settings.name)


class Child:
    """One RQ worker process, restarted with back-off whenever it ends."""

    def __init__(
        self, role: str, node: str, redis_url: str, queues: list[str], job_class: type[Job]
    ) -> None:
        """Describe the worker; `keep_alive` starts it."""
        self.role, self.node, self.redis_url = role, node, redis_url
        self.queues, self.job_class = queues, job_class
        self.process: ForkProcess | None = None
        self.backoff_s = 0.5
        self.started = self.restart_at = 0.0

    def keep_alive(self) -> None:
        """Start the worker if it does not run and its back-off is over."""
        now = time.monotonic()
        if self.process is not None and self.process.is_alive():
            return
        if self.process is not None:
            self.process.join()
            self._back_off(now)
        if now >= self.restart_at:
            self.process = multiprocessing.get_context("fork").Process(
                target=self._work, args=(os.getpid(),), name=f"ptzmesh-{self.role}"
            )
            self.process.start()
            self.started = now

    def _back_off(self, now: float) -> None:
        self.process = None
        lived_s = now - self.started
        self.backoff_s = 0.5 if lived_s > MAX_BACKOFF_S else min(2 * self.backoff_s, MAX_BACKOFF_S)
        self.restart_at = now + self.backoff_s
        logger.warning("%s ended; it starts again in %.1f s", self.role, self.backoff_s)

    def stop(self, grace_s: float) -> None:
        """Let the job in hand end, for at most `grace_s` seconds, then kill."""
        if self.process is None:
            return
        self.process.terminate()
        self.process.join(grace_s)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _work(self, supervisor: int) -> None:
        _die_with(supervisor)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        connection = wire.connect(self.redis_url, socket_timeout_s=RQ_WORKER_TTL_S - 5)
        worker = QuietWorker(
            self.queues,
            connection=connection,
            name=f"ptzmesh-{self.node}-{self.role}-{os.getpid()}-{secrets.token_hex(3)}",
            serializer=wire.MsgpackSerializer,
            job_class=self.job_class,
            worker_ttl=RQ_WORKER_TTL_S,
            job_monitoring_interval=10,
        )
        worker.work(logging_level="WARNING")


def _die_with(supervisor: int) -> None:
    """Ask the kernel for SIGTERM when the supervisor dies (Linux prctl); else live as an orphan."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:
        os._exit(1)


def _lock(settings: AgentSettings) -> IO[str]:
    """Hold the node's file in the state folder: one process a name on this machine."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    file = (settings.state_dir / f"{settings.name}.owner").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        raise ConfigError(
            f"node name ({settings.name}) is in use by another worker on this machine; "
            "choose another --name"
        ) from exc
    os.set_inheritable(file.fileno(), False)
    return file


def _owner_token(file: IO[str]) -> str:
    """Give the name's token, kept on disk so that a restart after kill -9 is not refused."""
    file.seek(0)
    token = file.read().strip()
    if not token:
        token = secrets.token_hex(16)
        file.write(token)
        file.flush()
    return token


def _local_address(connection: redis.Redis) -> str | None:
    """Give the local address of the connection to Redis; None over a unix socket."""
    link: Any = connection.connection_pool.get_connection()
    try:
        name = link._sock.getsockname()
    finally:
        connection.connection_pool.release(link)
    return str(name[0]) if isinstance(name, tuple) else None
