"""
The two RQ workers of a node, each a process that is restarted with back-off whenever it ends.

Forked from the supervisor after everything is imported, so that they share its memory.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import resource
import secrets
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import ForkProcess

import redis
from rq.job import Job

from worker.host.parent import end_with
from worker.node.jobqueue import guarded_queue, repair
from worker.node.outage import LOST_REDIS, RqLines
from worker.node.refusals import Refusals
from worker.node.registration.signs import Signs
from worker.node.rq_worker import QuietWorker
from worker.wire import rq_jobs
from worker.wire.connection import server, slots
from worker.wire.connection.away import AWAY

logger = logging.getLogger(__name__)

#: RQ waits for a job for worker_ttl - 15 s, and then asks again: often enough for whatever stands
#: between and forgets connections that are idle for minutes. Each time costs four packets.
RQ_WORKER_TTL_S = 105
#: So nothing else need keep such a connection alive; it ends one that got no answer then.
IDLE_S = RQ_WORKER_TTL_S - 10
#: A worker that gave no sign of life for longer hangs.
SIGN_S = IDLE_S
#: A job that lies there while the worker has waited for one for longer is not handed to it.
UNHEARD_S = 2.0
#: A restarted worker that lived this long is healthy again.
HEALTHY_S = 30.0
MAX_BACKOFF_S = 5.0
#: Ten handshakes of each of a thousand targets, and the rest.
MOST_FILES = 16_384
#: The signal for a worker whose connections lead nowhere.
RECONNECT = signal.SIGUSR1


@dataclass(kw_only=True)
class Child:
    """One RQ worker process: `keep_alive` starts it, and again whenever it has ended."""

    role: str
    node: str
    redis_url: str = field(repr=False)
    queues: Sequence[str]
    job_class: type[Job]
    signs: Signs = field(default_factory=Signs)
    process: ForkProcess | None = None
    backoff_s: float = 0.5
    started_at: float = 0.0
    restart_at: float = 0.0
    _token: str = ""

    def keep_alive(self) -> None:
        """Start the worker if it does not run and its back-off is over."""
        if self.process is not None and self.process.is_alive():
            return
        now = time.monotonic()
        if self.process is not None:
            self.process.join()
            self._back_off(now, self.process.exitcode)
        if now >= self.restart_at:
            process = multiprocessing.get_context("fork").Process(
                target=self._work, args=(os.getpid(),), name=f"ptzmesh-{self.role}"
            )
            self.started_at, self._token = now, secrets.token_hex(3)
            self.signs.begin()
            try:
                process.start()
            except OSError as exc:  # no process, file or memory to be had: there may be, later
                logger.warning("%s cannot be started: %s", self.role, exc)
                self._back_off(now, None)
                return
            self.process = process

    def _back_off(self, now: float, code: int | None) -> None:
        self.process = None
        healthy = now - self.started_at > HEALTHY_S
        self.backoff_s = 0.5 if healthy else min(2 * self.backoff_s, MAX_BACKOFF_S)
        self.restart_at = now + self.backoff_s
        # That Redis is away is logged by the supervisor, once.
        level = logging.DEBUG if code == LOST_REDIS else logging.WARNING
        logger.log(level, "%s ended; it starts again in %.1f s", self.role, self.backoff_s)

    def ask_to_stop(self) -> None:
        """Let the job in hand end, then exit."""
        if self.process is not None:
            self.process.terminate()

    def worker_name(self) -> str:
        """Return the name of the RQ worker; nothing while it gives no sign of life."""
        if self.process is None or not self.signs.shown_within(SIGN_S):
            return ""
        return self._name_of(self.process.pid)

    def _name_of(self, pid: int | None) -> str:
        return f"ptzmesh-{self.node}-{self.role}-{pid}-{self._token}"

    def waited_before(self, moment: float) -> bool:
        """Look whether it had waited for a job for some time at a moment of the monotonic clock."""
        return self.signs.waits_since < moment - UNHEARD_S

    def reconnect(self) -> None:
        """
        Have the worker connect to Redis and register again, whatever it waits for.

        From an address that this machine no longer has it would wait until its time-outs.
        """
        # One that has given no sign does so anyway, and may not know the signal yet.
        if self.process is not None and self.process.pid is not None and self.worker_name():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, RECONNECT)

    def stop_by(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic seconds), then kill."""
        if self.process is None:
            return
        self.process.join(max(0.0, deadline - time.monotonic()))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _work(self, supervisor: int) -> None:
        slots.take(self.role)
        end_with(supervisor, signal.SIGTERM)()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
        connection = server.connect(
            self.redis_url, socket_timeout_s=RQ_WORKER_TTL_S, keepalive_s=IDLE_S
        )
        refusals, lines = Refusals(self.node), RqLines()
        logging.getLogger("rq.worker").addFilter(lines)
        # What work-horses never change stays memory that all processes share.
        gc.freeze()
        try:
            for name in self.queues:
                repair(connection, name, refusals)
            worker = QuietWorker(
                list(self.queues),
                connection=connection,
                queue_class=guarded_queue(refusals, self.signs),
                name=self._name_of(os.getpid()),
                serializer=rq_jobs.MsgpackSerializer,
                job_class=self.job_class,
                worker_ttl=RQ_WORKER_TTL_S,
                job_monitoring_interval=10,
            )
            worker.refusals, worker.signs = refusals, self.signs
            signal.signal(RECONNECT, lambda *_: worker.connect_again())
            worker.connect = partial(server.connect, self.redis_url)
            worker.work(logging_level="WARNING")
        except AWAY as exc:
            logger.debug("%s lost Redis: %s", self.role, exc)
            os._exit(LOST_REDIS)
        except redis.RedisError as exc:
            logger.warning("%s cannot work with this Redis: %s", self.role, exc)
            os._exit(1)
        if lines.lost_redis:
            os._exit(LOST_REDIS)


def open_many_files() -> None:
    """
    Let this process and its children have as many files open as they may, up to `MOST_FILES`.

    systemd and shells start with 1024 for programs that use select(2); a hundred targets that do
    not answer have as many handshakes under way.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
