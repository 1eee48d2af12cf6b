"""
The two RQ workers of a node, each a process that is restarted with back-off whenever it ends.

Forked from the supervisor after everything is imported, so that they share its memory.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import secrets
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkProcess

import redis
from redis.client import Pipeline
from rq import Worker, worker_registration
from rq.job import Job

from worker import wire
from worker.parent import end_with

logger = logging.getLogger(__name__)

#: RQ blocks for worker_ttl - 15 s on its queues, then refreshes its record: ~6 commands in 45 s.
RQ_WORKER_TTL_S = 60
#: A restarted worker that lived this long is healthy again.
HEALTHY_S = 30.0
MAX_BACKOFF_S = 5.0


class QuietWorker(Worker):
    """RQ's worker without its pub/sub command channel: nobody stops a node through Redis."""

    #: Seconds; RQ's own 60 would leave a node idle for a minute after Redis is back.
    max_connection_wait_time = 5.0

    def subscribe(self) -> None:
        """Open no channel; saves a connection and a thread as well."""

    def unsubscribe(self) -> None:
        """Nothing was opened."""

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Refresh the registration, and make it anew where Redis has lost its data since."""
        if pipeline is not None or self.birth_date is None:
            super().heartbeat(timeout, pipeline)
            return
        with self.connection.pipeline(transaction=False) as own:
            super().heartbeat(timeout, own)
            is_new, *_ = own.execute()  # of HSET: the field was not there, so nothing was
            if is_new:
                own.hset(self.key, mapping=self.serialize())
                worker_registration.register(self, own)
                own.execute()

    def handle_work_horse_killed(self, job: Job, *_details: object) -> None:
        """Have the run carried on at once: what this row did not measure is `crashed`."""
        run = job.kwargs.get("run") if isinstance(job.kwargs, dict) else None
        if isinstance(run, str):
            with contextlib.suppress(redis.RedisError):
                wire.enqueue_advance(self.connection, run)


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
            self._back_off(now)
        if now >= self.restart_at:
            self.process = multiprocessing.get_context("fork").Process(
                target=self._work, args=(os.getpid(),), name=f"ptzmesh-{self.role}"
            )
            self.process.start()
            self.started_at = now

    def _back_off(self, now: float) -> None:
        self.process = None
        healthy = now - self.started_at > HEALTHY_S
        self.backoff_s = 0.5 if healthy else min(2 * self.backoff_s, MAX_BACKOFF_S)
        self.restart_at = now + self.backoff_s
        logger.warning("%s ended; it starts again in %.1f s", self.role, self.backoff_s)

    def ask_to_stop(self) -> None:
        """Let the job in hand end, then exit."""
        if self.process is not None:
            self.process.terminate()

    def stop_by(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic seconds), then kill."""
        if self.process is None:
            return
        self.process.join(max(0.0, deadline - time.monotonic()))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _work(self, supervisor: int) -> None:
        end_with(supervisor, signal.SIGTERM)()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
        connection = wire.connect(self.redis_url, socket_timeout_s=RQ_WORKER_TTL_S)
        try:
            worker = QuietWorker(
                list(self.queues),
                connection=connection,
                name=f"ptzmesh-{self.node}-{self.role}-{os.getpid()}-{secrets.token_hex(3)}",
                serializer=wire.MsgpackSerializer,
                job_class=self.job_class,
                worker_ttl=RQ_WORKER_TTL_S,
                job_monitoring_interval=10,
            )
            worker.work(logging_level="WARNING")
        except redis.RedisError as exc:
            reason = wire.without_secrets(str(exc), self.redis_url)
            logger.warning("%s lost Redis: %s", self.role, reason)
            os._exit(1)
