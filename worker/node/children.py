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
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.context import ForkProcess
from typing import Any

import redis
from redis.client import Pipeline
from rq import Queue, Worker, worker_registration
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.timeouts import HorseMonitorTimeoutException
from rq.utils import now

from worker.host.parent import end_with
from worker.model.errors import WireError
from worker.model.text import one_line
from worker.node.jobqueue import guarded_queue, mend
from worker.node.outage import LOST_REDIS, RqLines
from worker.node.refusals import Cause, Refusals, cause_of
from worker.wire import keyspace, rq_jobs
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
#: Tells a worker that its connections lead nowhere.
RECONNECT = signal.SIGUSR1


class QuietWorker(Worker):
    """RQ's worker without its pub/sub command channel: nobody stops a node through Redis."""

    #: Seconds; RQ's own 60 would leave a node idle for a minute after Redis is back.
    max_connection_wait_time = 5.0
    refusals: Refusals

    def subscribe(self) -> None:
        """Open no channel; saves a connection and a thread as well."""

    def unsubscribe(self) -> None:
        """Nothing was opened."""

    def check_for_suspension(self, burst: bool) -> None:
        """Heed no `rq suspend`, for the same reason."""

    def run_maintenance_tasks(self) -> None:
        """Tidy RQ's registries; what others have written there must not end the worker."""
        try:
            self.clean_registries()  # type: ignore[no-untyped-call]  # untyped in RQ
        except (*AWAY, StopRequested):
            raise
        except Exception as exc:
            self.last_cleaned_at = now()  # type: ignore[assignment]  # RQ types it as None
            reason = one_line(f"{type(exc).__name__}: {exc}")
            logger.warning("RQ's registries of %s not tidied: %s", self.queue_names(), reason)

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run one job; whatever is damaged in RQ's keys, the next one is run all the same."""
        try:
            super().execute_job(job, queue)
        except (*AWAY, StopRequested):
            raise
        except Exception as exc:
            if self.horse_pid:
                self.kill_horse()
                self.wait_for_horse()
                self._horse_pid = 0
            self.executions.clear()
            reason = f"RQ's keys are damaged: {exc}"
            self.refusals.note(self.connection, job.id, reason, Cause.DAMAGED)
            mend(self.connection, queue.name, self.refusals)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Note what a job read that it could not work with; RQ logs every other exception."""
        exc = exc_info[1]
        if isinstance(exc, WireError) or _is_wrong_type(exc):
            self.refusals.note(self.connection, job.id, str(exc), cause_of(exc))
        elif isinstance(exc, redis.ResponseError) and not isinstance(exc, AWAY):
            # Redis' own state, or a right that is missing: nothing is wrong with the job.
            logger.warning("job %s broken off, Redis says: %s", job.id, one_line(str(exc)))
        else:
            super().handle_exception(job, *exc_info)

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Refresh the registration, and make it anew where Redis has lost its data since."""
        if pipeline is not None or self.birth_date is None:
            super().heartbeat(timeout, pipeline)
            return
        served = keyspace.queue_workers_key(self.queue_names()[0])
        with self.connection.pipeline(transaction=False) as own:
            super().heartbeat(timeout, own)
            own.smembers(served)
            # Of HSET: the field was not there, so nothing was. While a job runs RQ makes the record
            # anew, and no more than that.
            is_new, *_, known = own.execute()
        if is_new or self.key.encode() not in known:
            with self.connection.pipeline() as anew:
                anew.hset(self.key, mapping=self.serialize())
                worker_registration.register(self, anew)
                anew.execute()

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        """Watch a job by the monotonic clock: RQ kills what a clock that is set makes look old."""
        self.watched, self.watched_since = job, time.monotonic()
        super().monitor_work_horse(job, queue, execution)

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Wait for the work-horse; when that takes long, say anew how long it has worked."""
        try:
            return super().wait_for_horse()
        except HorseMonitorTimeoutException:
            worked = timedelta(seconds=time.monotonic() - self.watched_since)
            self.watched.started_at = now() - worked
            raise

    def handle_work_horse_killed(self, job: Job, *_details: object) -> None:
        """Have the run carried on at once: what this row did not measure is `crashed`."""
        run = job.kwargs.get("run") if isinstance(job.kwargs, dict) else None
        if isinstance(run, str):
            with contextlib.suppress(redis.RedisError):
                rq_jobs.enqueue_advance(self.connection, run)


def _is_wrong_type(exc: Exception) -> bool:
    """Tell whether something else than ours lies at a key of ours."""
    return isinstance(exc, redis.ResponseError) and "WRONGTYPE" in str(exc)


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
        # That Redis is away is said by the supervisor, once.
        level = logging.DEBUG if code == LOST_REDIS else logging.WARNING
        logger.log(level, "%s ended; it starts again in %.1f s", self.role, self.backoff_s)

    def ask_to_stop(self) -> None:
        """Let the job in hand end, then exit."""
        if self.process is not None:
            self.process.terminate()

    def reconnect(self) -> None:
        """
        Have the worker connect to Redis anew, whatever it waits for.

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
        signal.signal(RECONNECT, lambda *_: _hang_up(connection))
        refusals, lines = Refusals(self.node), RqLines()
        logging.getLogger("rq.worker").addFilter(lines)
        try:
            for name in self.queues:
                mend(connection, name, refusals)
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


def _hang_up(connection: redis.Redis) -> None:
    """End the connections of a pool, in a signal handler: who waits at one finds it closed."""
    pool: Any = connection.connection_pool
    for link in (*pool._in_use_connections, *pool._available_connections):
        if link._sock is not None:
            with contextlib.suppress(OSError):
                link._sock.shutdown(socket.SHUT_RDWR)
