"""
The queues that a worker takes jobs from: whatever is in them, and in RQ's lists beside them.

Ids that are invalid, records that are refused and keys that are of another type than RQ's are noted
(`refusals`) and put out of the way, so that the next job is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import redis
from rq import Queue
from rq.exceptions import DequeueTimeout, NoSuchJobError
from rq.job import Job

from worker.node.allowlist import JOB_ID, MOST, AllowListedJob, Refused
from worker.node.refusals import Cause, Refusals
from worker.node.registration.signs import Signs
from worker.wire import keyspace, rq_jobs, scripts

#: A word that is the id of no job, and for how many connections that died it is looked.
NO_JOB, MOST_DEAD = "-", 8


class GuardedQueue(Queue):
    """
    RQ's queue, of which only jobs come that may be executed.

    Relied on of RQ's `dequeue_any`: it takes an id by `lmove` where a worker serves one queue, else
    by `lpop`; hands it to `_fetch_dequeued_job`; and takes the next where that returns None. What
    `lmove` took stays in the intermediate list until the work-horse removes it.
    """

    refusals: ClassVar[Refusals]
    signs: ClassVar[Signs]

    @classmethod
    def lmove(cls, connection: redis.Redis, queue_key: str, timeout: int | None) -> Any:
        """Take an id from the one queue, to RQ's list of what is taken."""
        if timeout is None:
            take = partial(super().lmove, connection, queue_key, timeout)
        else:
            take = partial(_take_with_record, connection, queue_key, timeout)
        return cls._taken(connection, [queue_key], take)

    @classmethod
    def lpop(
        cls, queue_keys: Any, timeout: int | None, connection: redis.Redis | None = None
    ) -> Any:
        """Take an id from the first queue that has one."""
        assert connection is not None  # noqa: S101 - RQ always gives it
        return cls._taken(
            connection, queue_keys, partial(super().lpop, queue_keys, timeout, connection)
        )

    @classmethod
    def _taken(cls, connection: redis.Redis, queue_keys: list[str], take: Callable[[], Any]) -> Any:
        """Take from the queues until it is an id that a job can have, or nothing is there."""
        while True:
            try:
                with cls.signs.waiting():
                    taken = take()
            except redis.ResponseError as exc:
                if not str(exc).startswith("WRONGTYPE"):
                    raise
                # Another node that serves the queue may have been first: nothing is left to repair.
                for key in queue_keys:
                    repair(connection, _name_of(key), cls.refusals)
                continue
            if taken is None:
                return None
            raw = taken[1]
            job = raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
            if JOB_ID.fullmatch(job):
                return taken
            cls.refusals.note(connection, job[:80], "the job's id is invalid", Cause.FOREIGN)
            # `lpop` has left nothing there.
            connection.lrem(keyspace.intermediate_key(_name_of(queue_keys[0])), 1, raw)

    @classmethod
    def _fetch_dequeued_job(
        cls,
        connection: redis.Redis,
        queue_key: str,
        job_id: str,
        job_class: type[Job] | None = None,
        serializer: Any = None,
        death_penalty_class: Any = None,
    ) -> tuple[Job, Queue] | None:
        queue = cls.from_queue_key(
            queue_key, connection, job_class, serializer, death_penalty_class
        )
        try:
            job = queue.job_class.fetch(job_id, connection, serializer=queue.serializer)
            if job.origin != queue.name:
                raise Refused(f"its origin ({job.origin[:80]!r}) is not this queue")
            return job, queue
        except Refused as exc:
            cls.refusals.note(connection, job_id, str(exc), exc.cause)
            if exc.is_ours:
                connection.expire(keyspace.job_key(job_id), rq_jobs.JOB_TTL_S)
        except NoSuchJobError:
            pass
        connection.lrem(keyspace.intermediate_key(queue.name), 1, job_id)
        return None


def _take_with_record(connection: redis.Redis, queue_key: str, timeout: int) -> tuple[str, Any]:
    """
    Wait for an id, and have the job's record come with it, in one round trip.

    The server looks for that once it has moved the id; where it cannot, the record is read later.
    """
    taken = keyspace.intermediate_key(_name_of(queue_key))
    _, digest = scripts.with_digest(("job_record",))
    pipeline = connection.pipeline(transaction=False)
    pipeline.blmove(queue_key, taken, timeout)
    pipeline.evalsha(digest, 1, taken, *MOST, keyspace.job_key(""))
    moved, found = pipeline.execute(raise_on_error=False)
    if isinstance(moved, redis.RedisError):
        raise moved
    if moved is None:
        raise DequeueTimeout(timeout, queue_key)
    AllowListedJob.came_along.clear()
    if isinstance(found, list) and found and found[0] == moved:
        AllowListedJob.came_along[moved.decode(errors="replace")] = found[1]
    return queue_key, moved


def guarded_queue(refusals: Refusals, signs: Signs) -> type[GuardedQueue]:
    """Make the queue class of a worker, which notes what it refuses, and shows that it waits."""
    return type("GuardedQueue", (GuardedQueue,), {"refusals": refusals, "signs": signs})


def unblock(connection: redis.Redis, queue_name: str) -> None:
    """
    Have no connection of ours wait in Redis at a queue of our own any more.

    One that died unheard, as an address was lost, waits there until its time is over, and would be
    handed the next job, which nobody does then. It is handed a word that is no job instead.
    """
    queue, taken = keyspace.queue_key(queue_name), keyspace.intermediate_key(queue_name)
    for _ in range(MOST_DEAD):
        pipeline = connection.pipeline(transaction=False)
        pipeline.rpush(queue, NO_JOB)
        pipeline.lrem(queue, 0, NO_JOB)
        pipeline.lrem(taken, 0, NO_JOB)
        # None of it, or an error: where it is no list, who takes from it next repairs that.
        if pipeline.execute(raise_on_error=False)[1] != 0:
            return


def repair(connection: redis.Redis, queue_name: str, refusals: Refusals) -> None:
    """
    Delete what is of another type than RQ's at the keys of one queue of ours, and note it.

    RQ could do nothing with it, nor could a job be enqueued.
    """
    types = keyspace.keys_of_queue(queue_name)
    pipeline = connection.pipeline(transaction=False)
    for key in types:
        pipeline.type(key)
    for (key, wanted), kind in zip(types.items(), pipeline.execute(), strict=True):
        if kind.decode() not in (wanted, "none"):
            connection.delete(key)
            reason = f"the key is a {kind.decode()}; it is deleted"
            refusals.note(connection, key, reason, Cause.FOREIGN)


def _name_of(queue_key: str) -> str:
    return queue_key.removeprefix(keyspace.queue_key(""))
