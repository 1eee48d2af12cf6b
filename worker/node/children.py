"""
The two RQ workers of a node, each a process that is restarted with back-off whenever it ends.

Forked from the supervisor after everything is imported, so that they share its memory.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import resource
import secrets
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkProcess

import redis
from rq.job import Job

from worker.host.parent import end_with
from worker.node.jobqueue import guarded_queue, repair
from worker.node.outage import LOST_REDIS, RqLines
from worker.node.refusals import Refusals
from worker.node.rq_worker import QuietWorker
from worker.wire import rq_jobs
from worker.wire.connection import command_count, server
from worker.wire.connection.away import AWAY

logger = logging.getLogger(__name__)

#: RQ blocks for worker_ttl - 15 s on its queues, then refreshes its record: ~6 commands in 45 s.
RQ_WORKER_TTL_S = 60
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
    process: ForkProcess | None = None
    backoff_s: float = 0.5
    started_at: float = 0.0
    restart_at: float = 0.0

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
            self.started_at = now
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

    def reconnect(self) -> None:
        """
        Have the worker connect to Redis again, whatever it waits for.

        From an address that this machine no longer has it would wait until its time-outs.
        """
        if self.process is not None and self.process.pid is not None:
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
        command_count.take_slot(self.role)
        end_with(supervisor, signal.SIGTERM)()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
        connection = server.connect(self.redis_url, socket_timeout_s=RQ_WORKER_TTL_S)
        signal.signal(RECONNECT, lambda *_: server.hang_up(connection))
        refusals, lines = Refusals(self.node), RqLines()
        logging.getLogger("rq.worker").addFilter(lines)
        try:
            for name in self.queues:
                repair(connection, name, refusals)
            worker = QuietWorker(
                list(self.queues),
                connection=connection,
                queue_class=guarded_queue(refusals),
                name=f"ptzmesh-{self.node}-{self.role}-{os.getpid()}-{secrets.token_hex(3)}",
                serializer=rq_jobs.MsgpackSerializer,
                job_class=self.job_class,
                worker_ttl=RQ_WORKER_TTL_S,
                job_monitoring_interval=10,
            )
            worker.refusals = refusals
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
