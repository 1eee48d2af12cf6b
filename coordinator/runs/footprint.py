"""
The memory that the mesh takes in the Redis it shares, without a scan of the keyspace.

Every key is found through an index of ours (runs, nodes, their queues), and Redis measures it
(MEMORY USAGE). Of many, evenly spread ones are measured and the rest is taken to be like them. Left
out, as no index names them, are the keys of programs that measure themselves (`ptzmesh:monitor:…`);
they lapse by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import redis

from coordinator.runs.nodes import commands_per_s
from worker.model.names import NodeName, RunId
from worker.model.probe import PROBES
from worker.wire import keyspace
from worker.wire.node_record import Node
from worker.wire.room import memory_used_pct
from worker.wire.round_trip import Asking, alone, ask_each, sure

T = TypeVar("T")

#: Measured of each kind at most; more are taken to be like these.
SAMPLE = 64
#: Keys asked about in one round trip: some 2 µs of Redis each.
BATCH = 64
#: Keys that are one of a kind, beside the stream.
SINGLE = (
    keyspace.NODES,
    keyspace.RUNS,
    keyspace.RUNS_OPEN,
    keyspace.WAITING,
    keyspace.LIMITS,
    keyspace.PACE,
    keyspace.HOLDS,
    keyspace.BACK,
    keyspace.REFUSED,
)


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """
    Bytes of Redis' memory, by what they hold.

    Attributes:
        stream: Results, and the collectors' consumer groups.
        runs: Their plans, counts and bitmaps.
        nodes: Records, leases, budgets.
        jobs: RQ's queues, registries and jobs of ours, and its records of our workers.
        other: What is one of a kind.
        estimated: There are so many runs, nodes or jobs that not each was measured.
    """

    stream: int
    runs: int
    nodes: int
    jobs: int
    other: int
    estimated: bool

    @property
    def total(self) -> int:
        """All of it."""
        return self.stream + self.runs + self.nodes + self.jobs + self.other


def read_footprint(connection: redis.Redis) -> Footprint:
    """Measure it: some hundred short commands at most, whatever there is."""
    runs = members(connection, keyspace.RUNS)
    nodes = [NodeName(node) for node in members(connection, keyspace.NODES)]
    jobs, jobs_whole = _jobs(connection, nodes)
    return Footprint(
        stream=_bytes(connection, [keyspace.RESULTS]),
        runs=bytes_of_runs(connection, runs),
        nodes=alone(connection, _asking_scaled(nodes, _node_keys)),
        jobs=jobs,
        other=_bytes(connection, SINGLE),
        estimated=not jobs_whole or max(len(runs), len(nodes)) > SAMPLE,
    )


def used_of_limits(
    connection: redis.Redis, nodes: Iterable[Node], info: Mapping[str, Any]
) -> dict[str, float | None]:
    """Return what is used of the mesh's limits, by name; None where Redis has no maxmemory."""
    return {
        "stream_entries": connection.xlen(keyspace.RESULTS),
        "stream_bytes": connection.memory_usage(keyspace.RESULTS) or 0,
        "run_bytes": bytes_of_runs(connection, members(connection, keyspace.RUNS)),
        "redis_memory_pct": memory_used_pct(info),
        "commands_per_s": commands_per_s(nodes),
    }


def members(connection: redis.Redis, key: str) -> list[str]:
    """Return the names in a sorted set, lowest first."""
    return [_text(name) for name in cast("list[bytes]", connection.zrange(key, 0, -1))]


def bytes_of_runs(connection: redis.Redis, runs: Sequence[str]) -> int:
    """Measure what is kept of these runs; of many, evenly spread ones stand for the rest."""
    return alone(connection, asking_bytes_of_runs(runs))


def asking_bytes_of_runs(runs: Sequence[str]) -> Asking[int]:
    """Ask for what `bytes_of_runs` returns, in one step."""
    return _asking_scaled(runs, lambda run: run_keys(RunId(run)))


def _text(name: bytes) -> str:
    """Read a name; what is no text is no name of ours, and counted as nothing."""
    return name.decode(errors="replace")


def run_keys(run: RunId) -> list[str]:
    """Return the keys of a run's record."""
    return [keyspace.run_key(run), *(keyspace.done_key(run, probe) for probe in PROBES)]


def _node_keys(name: NodeName) -> list[str]:
    return [keyspace.node_key(name), keyspace.lease_key(name), keyspace.budget_key(name)]


class _Queue(NamedTuple):
    """What RQ has of a queue: the first of its jobs, by state; the answers to `_look_at_queue`."""

    waiting: list[bytes]
    begun: list[bytes]
    failed: list[bytes]
    workers: set[bytes]
    waiting_count: int
    failed_count: int


def _look_at_queue(pipeline: redis.client.Pipeline, queue: str) -> None:
    waiting, failed = keyspace.queue_key(queue), keyspace.registry_key("failed", queue)
    pipeline.lrange(waiting, 0, SAMPLE - 1)
    pipeline.zrange(keyspace.registry_key("wip", queue), 0, SAMPLE - 1)
    pipeline.zrange(failed, 0, SAMPLE - 1)
    pipeline.smembers(keyspace.queue_workers_key(queue))
    pipeline.llen(waiting)
    pipeline.zcard(failed)


def _jobs(connection: redis.Redis, nodes: Sequence[NodeName]) -> tuple[int, bool]:
    """Count the bytes of queues, jobs and workers; return whether all of them were looked at."""
    chosen = _spread(nodes)
    own = [queue(name) for name in chosen for queue in (keyspace.node_queue, keyspace.serve_queue)]
    names = [keyspace.CONTROL_QUEUE, *own]
    queues = ask_each(connection, names, _look_at_queue, _Queue)
    total, is_whole = 0.0, len(chosen) == len(nodes)
    for name, queue in zip(names, queues, strict=True):
        factor = 1.0 if name == keyspace.CONTROL_QUEUE else len(nodes) / len(chosen)
        keys = [keyspace.job_key(_text(job).partition(":")[0]) for job in queue.begun]
        for sample, count in (
            (queue.waiting, queue.waiting_count),
            (queue.failed, queue.failed_count),
        ):
            ids = [keyspace.job_key(_text(job)) for job in sample]
            is_whole = is_whole and count <= len(ids)
            total += factor * _bytes(connection, ids) * count / len(ids) if ids else 0
        # A responder serves two queues; its record is counted with its own.
        mine = [] if name == keyspace.CONTROL_QUEUE else [_text(worker) for worker in queue.workers]
        total += factor * _bytes(connection, [*keys, *mine, *keyspace.keys_of_queue(name)])
    return round(total), is_whole


def _asking_scaled(items: Sequence[str], keys_of: Any) -> Asking[int]:
    """Measure some of many by their keys, in one step: a millisecond of Redis, in pieces."""
    chosen = _spread(items)
    if not chosen:
        return 0
    keys = [key for item in chosen for key in keys_of(item)]
    sizes = sure((yield partial(_measure, keys=keys)))
    return round(sum(size or 0 for size in sizes) * len(items) / len(chosen))


def _spread(items: Sequence[T]) -> list[T]:
    """
    Return all, or `SAMPLE` of them spread evenly.

    >>> _spread(range(3)), len(_spread(range(1000))), _spread(range(1000))[:3]
    ([0, 1, 2], 64, [0, 15, 31])
    """
    count = min(len(items), SAMPLE)
    return [items[number * len(items) // count] for number in range(count)]


def _bytes(connection: redis.Redis, keys: Iterable[str]) -> int:
    """Add up what keys take; one that is not there takes nothing."""
    listed, total = list(keys), 0
    for at in range(0, len(listed), BATCH):
        pipeline = connection.pipeline(transaction=False)
        _measure(pipeline, listed[at : at + BATCH])
        total += sum(size or 0 for size in pipeline.execute())
    return total


def _measure(pipeline: redis.client.Pipeline, keys: Iterable[str]) -> None:
    for key in keys:
        pipeline.memory_usage(key)
