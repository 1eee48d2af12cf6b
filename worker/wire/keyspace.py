"""
Every key name in one place, and the names of our queues and jobs.

All begin with `ptzmesh:`, but those of RQ, which keep its prefix so that `rq info` works. Pure.
"""

from __future__ import annotations

from datetime import datetime, timezone

NODES = "ptzmesh:nodes"
RUNS = "ptzmesh:runs"
RUNS_OPEN = "ptzmesh:runs:open"
RESULTS = "ptzmesh:results"
LIMITS = "ptzmesh:limits"
#: The newest jobs that workers refused, one JSON object each.
REFUSED = "ptzmesh:refused"
#: When the next batch of results is due, and how full Redis is.
PACE = "ptzmesh:pace"
#: Position in the stream and token of each follower of a single run → until when it holds the
#: stream from being trimmed there.
HOLDS = "ptzmesh:holds"
#: When the first node was heard again after a time in which none was; forgotten soon.
BACK = "ptzmesh:back"
CONTROL_QUEUE = "ptzmesh:control"
#: Of the names of our jobs, and of those of other versions.
JOB_PREFIX = "ptzmesh."
SWEEP = "ptzmesh.sweep"
SERVE = "ptzmesh.serve"
ADVANCE = "ptzmesh.advance"
ANSWER = "ptzmesh.answer"

#: States of jobs of which RQ keeps a set for each queue.
REGISTRIES = ("wip", "finished", "failed", "deferred", "ready", "scheduled", "canceled")

LEASE_PREFIX = "ptzmesh:lease:"
#: Node → for what, and until when, it waits; lua/lease.lua says how.
WAITING = "ptzmesh:waits"


def node_key(name: str) -> str:
    """Give the key of a node's record."""
    return f"ptzmesh:node:{name}"


def run_key(run: str) -> str:
    """Give the key of a run's hash."""
    return f"ptzmesh:run:{run}"


def done_key(run: str, probe: str) -> str:
    """Give the key of the bitmap of pairs that are in the stream."""
    return f"ptzmesh:run:{run}:done:{probe}"


def ready_key(token: str) -> str:
    """Give the key of the list where a responder says what became of a test that is asked."""
    return f"ptzmesh:ready:{token}"


def answer_key(token: str) -> str:
    """Give the key of an answering port: its secret, and its number once it is open."""
    return f"ptzmesh:answer:{token}"


def probe_key(node: str) -> str:
    """Give the key on which a node times its operations."""
    return f"ptzmesh:probe:{node}"


def job_key(job_id: str) -> str:
    """Give the key where RQ keeps a job's record."""
    return f"rq:job:{job_id}"


def queue_key(name: str) -> str:
    """Give the key of RQ's list for a queue."""
    return f"rq:queue:{name}"


def queue_workers_key(name: str) -> str:
    """Give the key where RQ keeps the keys of the workers of a queue."""
    return f"rq:workers:{name}"


def intermediate_key(queue: str) -> str:
    """Give the key of RQ's list of ids that were taken from a queue and are not yet begun."""
    return f"{queue_key(queue)}:intermediate"


def registry_key(state: str, queue: str) -> str:
    """Give the key of RQ's set of a queue's jobs in a state, one of `REGISTRIES`."""
    return f"rq:{state}:{queue}"


def keys_of_queue(queue: str) -> dict[str, str]:
    """Give all keys that RQ keeps for a queue → the type of each, as TYPE calls it."""
    return {
        queue_key(queue): "list",
        intermediate_key(queue): "list",
        queue_workers_key(queue): "set",
        **{registry_key(state, queue): "zset" for state in REGISTRIES},
    }


def same_plan_key(digest: str) -> str:
    """Give the key that names the open run of a plan."""
    return f"ptzmesh:plan:{digest}"


def node_queue(name: str) -> str:
    """Give the name of a node's own queue, which its prober serves."""
    return f"ptzmesh:node:{name}"


def serve_queue(name: str) -> str:
    """Give the name of the queue that a node's responder serves."""
    return f"ptzmesh:serve:{name}"


def lease_key(node: str) -> str:
    """Give the key that holds the token of the test that has the node."""
    return LEASE_PREFIX + node


def link_key(link: str) -> str:
    """Give the key of the tokens on a shared link, each with its expiry."""
    return f"{LEASE_PREFIX}link:{link}"


def wake_key(node: str) -> str:
    """Return the key of the list that wakes a node that waits."""
    return f"ptzmesh:wake:{node}"


def budget_key(node: str) -> str:
    """Return the key of the bytes that tests cost a node, by day: UTC days since 1970."""
    return f"ptzmesh:budget:{node}"


def reserved_key(token: str) -> str:
    """Return the key of what a test that is under way may cost each of its ends."""
    return f"ptzmesh:budget:reserved:{token}"


def holder_key(identifier: str) -> str:
    """Give the key that says whose identifier this is."""
    return f"ptzmesh:monitor:holder:{identifier}"


def waiters_key(prefix: str) -> str:
    """Give the key of the processes that met a locker of this prefix taken, by when."""
    return f"ptzmesh:monitor:waiters:{prefix}"


def slowest_key(prefix: str, day: datetime) -> str:
    """Give the key of a day's slowest operations on lockers of this prefix, by seconds."""
    return f"ptzmesh:monitor:slowest:{prefix}:{day.astimezone(timezone.utc):%Y%m%d}"


def sequence_key(recorder: str) -> str:
    """Give the key of the last number that the stream has of a recorder."""
    return f"ptzmesh:monitor:seq:{recorder}"
