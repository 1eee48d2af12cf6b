"""
RQ's worker as a node runs it: every method of RQ that is replaced, and what of RQ it relies on.

`tests/unit/worker/node/test_rq_relied.py` fails when RQ changes any of that.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import redis
from redis.client import Pipeline
from rq import Queue, Worker, worker_registration
from rq.exceptions import DequeueTimeout, StopRequested
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job
from rq.timeouts import HorseMonitorTimeoutException
from rq.utils import now
from rq.worker import WorkerStatus

from worker.model.errors import WireError
from worker.model.names import RunId
from worker.model.text import one_line
from worker.node.jobqueue import repair, unblock
from worker.node.refusals import Cause, Refusals, cause_of
from worker.node.registration.signs import Signs
from worker.wire import keyspace, rq_jobs
from worker.wire.connection import server, traffic
from worker.wire.connection.away import AWAY
from worker.wire.connection.way import LONG_WAY_S, way_s
from worker.wire.round_trip import alone

logger = logging.getLogger(__name__)

#: Between two looks at RQ's registries, of twenty commands each: if a job was done since, or not.
BUSY_TIDY_S, IDLE_TIDY_S = 600, 3600
#: The longest that RQ in a work-horse waits for an answer of Redis.
JOB_ANSWER_S = 60.0


class QuietWorker(Worker):
    """RQ's worker without its pub/sub command channel: nobody stops a node through Redis."""

    #: Seconds; RQ's own 60 would leave a node idle for a minute after Redis is back.
    max_connection_wait_time = 5.0
    refusals: Refusals
    signs: Signs
    #: Makes the connection of a work-horse; where there is none, it uses the worker's.
    connect: Callable[[], redis.Redis] | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        """Make RQ's worker; what it is to know of its node is set afterwards."""
        super().__init__(*args, **options)
        self.signs = Signs()
        #: Redis may not have the registration; of which connection that is known.
        self.is_doubted, self._known_by = True, 0.0
        #: Redis has it that this worker is idle, or a job is in hand that will say so as it ends.
        self.is_idle_told = False
        #: Open connections that the next work-horse has.
        self._passed_on: list[Any] = []

    # What RQ offers and a node does not have. RQ calls `subscribe` once as it starts, `unsubscribe`
    # once as it ends, and `check_for_suspension` before each job; none returns anything.

    def subscribe(self) -> None:
        """Open no channel; saves a connection and a thread as well."""

    def unsubscribe(self) -> None:
        """Nothing was opened."""

    def check_for_suspension(self, burst: bool) -> None:
        """Follow no `rq suspend`, for the same reason."""

    def get_redis_server_version(self) -> tuple[int, int, int]:
        """Return the least that we have: RQ would ask, to tell one before 4 from others."""
        return server.MIN_REDIS

    # What others have written to Redis must not end the worker.

    def run_maintenance_tasks(self) -> None:
        """
        Tidy RQ's registries.

        RQ's own method does this, and starts a scheduler and tidies groups, which we do not have.
        It is called again once `last_cleaned_at` is as old as `maintenance_interval`.
        """
        self.maintenance_interval = IDLE_TIDY_S
        try:
            self.clean_registries()  # type: ignore[no-untyped-call]  # untyped in RQ
        except (*AWAY, StopRequested):
            raise
        except Exception as exc:
            self.last_cleaned_at = now()  # type: ignore[assignment]  # RQ types it as None
            reason = one_line(f"{type(exc).__name__}: {exc}")
            logger.warning("RQ's registries of %s not tidied: %s", self.queue_names(), reason)

    def execute_job(self, job: Job, queue: Queue) -> None:
        """
        Run one job; whatever is damaged in RQ's keys, the next one is run all the same.

        What RQ reads or writes before, meanwhile and after may raise, and RQ would end the worker.
        Its own method also writes that the worker is idle, as does looking for the next job.
        """
        self.maintenance_interval = BUSY_TIDY_S
        try:
            execution = self.prepare_execution(job)
            is_known = traffic.opened_at() == self._known_by
            if self.connect is not None and way_s() > LONG_WAY_S:
                self._passed_on = server.pass_on(self.connection)
            self.fork_work_horse(job, queue)
            if self._passed_on:
                self._connect_meanwhile(is_known=is_known)
            self.monitor_work_horse(job, queue, execution)
        except (*AWAY, StopRequested):
            raise
        except Exception as exc:
            self._abandon_horse()
            reason = f"RQ's keys are damaged: {exc}"
            self.refusals.note(self.connection, job.id, reason, Cause.DAMAGED)
            repair(self.connection, queue.name, self.refusals)

    def _connect_meanwhile(self, *, is_known: bool) -> None:
        """Connect while a work-horse, which has the connection of before, does its job."""
        passed_on, self._passed_on = self._passed_on, []
        server.let_go(passed_on)
        with contextlib.suppress(redis.RedisError):  # then later, when it is needed
            self.connection.ping()
            if is_known:
                self._known_by = traffic.opened_at()

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """
        Run one job in its work-horse, which counts what that exchanged before it ends.

        Its connections are its own, and are looked after: a worker's wait for jobs for long.
        """
        server.look_after(self.connection, JOB_ANSWER_S)
        try:
            return super().perform_job(job, queue, execution)
        finally:
            traffic.look()

    def _abandon_horse(self) -> None:
        """End a work-horse that RQ no longer watches, as `monitor_work_horse` does at its end."""
        if self.horse_pid:
            self.kill_horse()
            self.wait_for_horse()
            self._horse_pid = 0
        self.is_idle_told = False
        self.executions.clear()

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """
        Note what a job read that it could not work with; RQ logs every other exception.

        RQ calls this in the work-horse, before it marks the job as failed.
        """
        exc = exc_info[1]
        # Something else than ours may lie at a key of ours.
        is_wrong_type = isinstance(exc, redis.ResponseError) and "WRONGTYPE" in str(exc)
        if isinstance(exc, WireError) or is_wrong_type:
            self.refusals.note(self.connection, job.id, str(exc), cause_of(exc))
        elif isinstance(exc, redis.ResponseError) and not isinstance(exc, AWAY):
            # Redis' own state, or a right that is missing: nothing is wrong with the job.
            logger.warning("job %s broken off, Redis says: %s", job.id, one_line(str(exc)))
        elif isinstance(exc, AWAY):
            # The supervisor says so once, and what was measured waits on the disk.
            logger.debug("job %s broken off, Redis is away: %s", job.id, one_line(str(exc)))
        else:
            super().handle_exception(job, *exc_info)

    # A job begins and ends with one round trip each, and none of the worker that forks.

    def prepare_execution(self, job: Job) -> Execution:
        """Note that a job is in hand; of that Redis is told by its work-horse."""
        execution = Execution(uuid4().hex, job.id, self.connection, self.name)
        execution._job = job
        self.executions[execution.id] = execution
        self._state = WorkerStatus.BUSY
        return execution

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """Run a job in the process that was forked for it, and end."""
        if self.connect is not None:
            self.connection = self.connect()
            server.take_over(self.connection, self._passed_on, JOB_ANSWER_S)
        rq_jobs.take_in_hand(self.connection)
        super().main_work_horse(job, queue)

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """
        Write that a job is being executed, by whom and until when, and that it is in no queue.

        What RQ's `prepare_execution` writes in the worker before the fork, and then this method in
        the work-horse. A job that asks Redis something first of all sends this with it.
        """

        def tell(pipeline: Pipeline) -> None:
            execution, ttl = self.execution, self.get_heartbeat_ttl(job)
            assert execution is not None  # noqa: S101 - it was made before the fork
            execution.save(ttl, pipeline)
            registry = ExecutionRegistry(job.id, connection=pipeline)
            registry.add(execution, ttl, pipeline)
            job.started_job_registry.add_execution(execution, pipeline, ttl)
            pipeline.sadd(execution.worker_executions_key, execution.composite_key)
            pipeline.expire(execution.worker_executions_key, ttl + 60)
            self.set_state(WorkerStatus.BUSY, pipeline)
            self.heartbeat(ttl, pipeline)
            job.prepare_for_execution(self.name, pipeline)
            pipeline.persist(job.key)
            if remove_from_intermediate_queue:
                # Last: should the rest be lost, whoever tidies that list sees the job.
                pipeline.lrem(keyspace.intermediate_key(job.origin), 1, job.id)

        assert rq_jobs.in_hand is not None  # noqa: S101 - this is the work-horse
        rq_jobs.in_hand.untold = tell
        job.started_at = now()
        if job.func_name not in rq_jobs.TELL_THEMSELVES:
            self._tell_begun()

    def _tell_begun(self) -> None:
        alone(self.connection, rq_jobs.asking_told())

    def _see_to(self, job: Job, trouble: redis.ResponseError | None) -> None:
        """Put out of the way what RQ's keys have of another type than RQ's."""
        if trouble is not None and not isinstance(trouble, AWAY):
            reason = f"RQ's keys are damaged: {trouble}"
            self.refusals.note(self.connection, job.id, reason, Cause.DAMAGED)
            repair(self.connection, job.origin, self.refusals)

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """Note that a job's function has ended, whether it returned or raised."""
        job.ended_at = now()
        self._tell_begun()  # where the job did not come so far
        assert rq_jobs.in_hand is not None  # noqa: S101 - this is the work-horse
        self._see_to(job, rq_jobs.in_hand.trouble)

    def _finalize_success(
        self, job: Job, queue: Queue, execution: Execution, return_value: Any
    ) -> None:
        """
        Forget a job that returned, and count it.

        RQ's own also looks for what no job of ours can have: dependents, callbacks, a result that
        is kept, repeats, webhooks, a rate limit.
        """
        self.handle_execution_ended(job, queue, 0)
        assert job.started_at is not None  # noqa: S101 - as in RQ
        assert job.ended_at is not None  # noqa: S101 - as in RQ
        with self.connection.pipeline(transaction=False) as pipeline:
            self.increment_successful_job_count(pipeline)
            self.increment_total_working_time(job.ended_at - job.started_at, pipeline)
            execution.delete(job, pipeline)
            pipeline.delete(job.key)
            self.set_state(WorkerStatus.IDLE, pipeline)
            answers = pipeline.execute(raise_on_error=False)
        errors = (answer for answer in answers if isinstance(answer, redis.ResponseError))
        self._see_to(job, next(errors, None))

    def _finalize_failure(
        self, job: Job, queue: Queue, execution: Execution, exc_info: Any
    ) -> None:
        """Note that a job raised, and that the worker is idle."""
        super()._finalize_failure(job, queue, execution, exc_info)
        super().set_state(WorkerStatus.IDLE)

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """Write what the worker does; not that it is idle again, which its job has written."""
        if pipeline is not None:
            super().set_state(state, pipeline)
            return
        is_idle = state == WorkerStatus.IDLE
        if not (is_idle and self.is_idle_told):
            super().set_state(state)
        self.is_idle_told = is_idle

    # The node's heartbeats keep the registration (`lua/heard.lua`): so this gives a sign of life,
    # and looks after the registration where Redis may have lost it.

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """
        Make the registration whole where it is in doubt: at first, or by another connection.

        RQ calls this before it waits for a job, after it has got one, and after that is done; with
        a pipeline, while one runs: then it writes one field and the time to live.
        """
        self.signs.show()
        if pipeline is not None or self.birth_date is None:
            super().heartbeat(timeout, pipeline)
            return
        self.last_heartbeat = now()
        if self.is_doubted or traffic.opened_at() != self._known_by:
            self._make_whole(timeout)
            self.is_doubted, self._known_by = False, traffic.opened_at()
        traffic.look()

    def _make_whole(self, timeout: int | None) -> None:
        """
        Make the registration again where Redis has lost it, and have dead connections wait no more.

        RQ writes a field of the record at times, as the worker's state: where there was none, that
        makes one without `birth`, which `serialize` has.
        """
        own = self.queue_names()[0]
        with self.connection.pipeline(transaction=False) as both:
            both.hexists(self.key, "birth")
            both.smembers(keyspace.queue_workers_key(own))
            super().heartbeat(timeout, both)
            # Ours come first, so these are their answers whatever RQ adds.
            is_whole, registered = both.execute()[:2]
        unblock(self.connection, own)
        if not is_whole or self.key.encode() not in registered:
            with self.connection.pipeline() as birth:
                birth.hset(self.key, mapping=self.serialize())
                worker_registration.register(self, birth)
                birth.execute()

    def connect_again(self) -> None:
        """
        Have this worker connect and register again, in a signal handler.

        What it waits for at Redis is given up: there the time to wait is over, as RQ sees it.
        """
        server.hang_up(self.connection)
        self.is_doubted = True
        if self.signs.waits_since < math.inf:
            raise DequeueTimeout

    # A job's time is measured by the monotonic clock: RQ subtracts `job.started_at` from the wall
    # clock whenever `wait_for_horse` is timed out, and kills what a clock that is set makes look
    # old. So the start is set before each of these looks, to where it would be by this clock.

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        """Watch a work-horse until it ends."""
        self.watched, self.watched_since = job, time.monotonic()
        super().monitor_work_horse(job, queue, execution)

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Wait for the work-horse; RQ's alarm ends this after `job_monitoring_interval`."""
        try:
            return super().wait_for_horse()
        except HorseMonitorTimeoutException:
            worked = timedelta(seconds=time.monotonic() - self.watched_since)
            self.watched.started_at = now() - worked
            raise

    def handle_work_horse_killed(self, job: Job, *_details: object) -> None:
        """
        Have the run carried on at once: what this row did not measure is `crashed`.

        RQ calls this when a work-horse ended without having marked its job as finished or failed.
        """
        self.is_idle_told = False
        with contextlib.suppress(redis.RedisError):
            # It may have died before it told that it had begun.
            self.connection.lrem(keyspace.intermediate_key(job.origin), 1, job.id)
        run = job.kwargs.get("run") if isinstance(job.kwargs, dict) else None
        if isinstance(run, str):
            with contextlib.suppress(redis.RedisError):
                rq_jobs.enqueue_advance(self.connection, RunId(run))
