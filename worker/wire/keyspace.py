"""
Every key name in one place, and the names of our queues and jobs.

All begin with `ptzmesh:`, but those of RQ, which keep its prefix so that `rq info` works. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone

from worker.model.names import NodeName, RunId

#: A key, or a queue, of each token or whatever else stands for the braces.
Of = Callable[[str], str]
OfNode = Callable[[NodeName], str]
OfRun = Callable[[RunId], str]
OfTwo = Callable[[str, str], str]

NODES = "ptzmesh:nodes"
#: A node's record.
node_key: OfNode = "ptzmesh:node:{}".format
#: When the first node was heard again after a time in which none was; forgotten soon.
BACK = "ptzmesh:back"

RUNS = "ptzmesh:runs"
RUNS_OPEN = "ptzmesh:runs:open"
#: A run's hash.
run_key: OfRun = "ptzmesh:run:{}".format
#: By run and probe, the bitmap of pairs that are in the stream.
done_key: Callable[[RunId, str], str] = "ptzmesh:run:{}:done:{}".format
#: By digest, the open run of a plan.
same_plan_key: Of = "ptzmesh:plan:{}".format

RESULTS = "ptzmesh:results"
LIMITS = "ptzmesh:limits"
#: When the next batch of results is due, and how full Redis is.
PACE = "ptzmesh:pace"
#: Position in the stream and token of each follower of a single run → until when it holds the
#: stream from being trimmed there.
HOLDS = "ptzmesh:holds"

#: By token, the list where a responder says what became of a test that is asked.
ready_key: Of = "ptzmesh:ready:{}".format
#: By token, an answering port: its secret, and its number once it is open.
answer_key: Of = "ptzmesh:answer:{}".format
#: On which a node times its operations.
probe_key: OfNode = "ptzmesh:probe:{}".format

#: The token of the test that has a node.
lease_key: OfNode = "ptzmesh:lease:{}".format
#: The tokens on a shared link, each with its expiry.
link_key: Of = "ptzmesh:lease:link:{}".format
#: Node → for what, and until when, it waits; lua/lease.lua says how.
WAITING = "ptzmesh:waits"
#: The list that wakes a node that waits.
WAKE_PREFIX = "ptzmesh:wake:"
wake_key: OfNode = f"{WAKE_PREFIX}{{}}".format
#: The bytes that tests cost a node, by day: UTC days since 1970.
budget_key: OfNode = "ptzmesh:budget:{}".format
#: By token, what a test that is under way may cost each of its ends.
reserved_key: Of = "ptzmesh:budget:reserved:{}".format

#: Whose an identifier in a locker is.
holder_key: Of = "ptzmesh:monitor:holder:{}".format
#: By prefix, the processes that met a locker of it taken, by when.
waiters_key: Of = "ptzmesh:monitor:waiters:{}".format
#: The last number that the stream has of a recorder.
sequence_key: Of = "ptzmesh:monitor:seq:{}".format

CONTROL_QUEUE = "ptzmesh:control"
#: A node's own queue, which its prober serves, and that which its responder serves.
node_queue: OfNode = "ptzmesh:node:{}".format
serve_queue: OfNode = "ptzmesh:serve:{}".format
#: The newest jobs that workers refused, one JSON object each.
REFUSED = "ptzmesh:refused"
#: Of the names of our jobs, and of those of other versions.
JOB_PREFIX = "ptzmesh."
SWEEP = "ptzmesh.sweep"
SERVE = "ptzmesh.serve"
ADVANCE = "ptzmesh.advance"
ANSWER = "ptzmesh.answer"

#: RQ's own: the keys of all queues, a job's record, a queue's list, a worker's record, the keys of
#: a queue's workers, and the ids that were taken from it and are not yet begun.
QUEUES = "rq:queues"
job_key: Of = "rq:job:{}".format
queue_key: Of = "rq:queue:{}".format
worker_key: Of = "rq:worker:{}".format
queue_workers_key: Of = "rq:workers:{}".format
intermediate_key: Of = "rq:queue:{}:intermediate".format
#: By state and queue, RQ's set of jobs; `REGISTRIES` are the states.
registry_key: OfTwo = "rq:{}:{}".format
REGISTRIES = ("wip", "finished", "failed", "deferred", "ready", "scheduled", "canceled")


def keys_of_queue(queue: str) -> dict[str, str]:
    """Return all keys that RQ keeps for a queue → the type of each, as TYPE calls it."""
    return {
        queue_key(queue): "list",
        intermediate_key(queue): "list",
        queue_workers_key(queue): "set",
        **{registry_key(state, queue): "zset" for state in REGISTRIES},
    }


def slowest_key(prefix: str, day: datetime) -> str:
    """Return the key of a day's slowest operations on lockers of a prefix, by seconds."""
    return f"ptzmesh:monitor:slowest:{prefix}:{day.astimezone(timezone.utc):%Y%m%d}"
