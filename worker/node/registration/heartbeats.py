"""
A node's heartbeats: they take its name, keep its record in Redis, and free the name in the end.

`lua/heartbeat.lua` decides who has a name; see `instance`. Once it is ours, a heartbeat sends what
has changed since the last one, and a digest of the record as that left it (`lua/beat.lua`). Where
Redis has another record, the whole of it is sent.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import msgpack
import redis

from worker.host import machine
from worker.model.names import NodeName, RunId
from worker.node.registration.instance import (
    LOOK_S,
    SETTLE_S,
    Instance,
    Other,
    Succession,
    other_from,
    refusal,
)
from worker.publish.outbox import Outbox
from worker.wire import keyspace, liveness, node_record, scripts
from worker.wire.clock_offset import ClockOffset, steady_s
from worker.wire.connection import command_count, traffic
from worker.wire.node_record import (
    FILE,
    HOLDER,
    INSTANCE,
    OWNER,
    PLACE,
    RQ_WORKERS,
    STEPS,
    STOPPED,
    Node,
)

logger = logging.getLogger(__name__)

#: What a heartbeat leaves of a record, in the order in which it is digested.
FIELDS = [*Node.names(), PLACE, OWNER, INSTANCE, FILE, *RQ_WORKERS.values()]
#: Of the digest in hexadecimal: another record has the same once in four thousand million.
DIGITS = 8
#: By role, of whom a queue is.
_QUEUES = {"prober": keyspace.node_queue, "responder": keyspace.serve_queue}
#: What the scripts know without being told each time.
CONSTANTS = scripts.constants(
    {
        "NODES": keyspace.NODES,
        "RUNS_OPEN": keyspace.RUNS_OPEN,
        "BACK": keyspace.BACK,
        "NODE": keyspace.node_key(NodeName("")),
        "RQ_WORKER": keyspace.worker_key(""),
        "QUEUE": [keyspace.queue_key(_QUEUES[role](NodeName(""))) for role in RQ_WORKERS],
        "REGISTERED": [
            keyspace.queue_workers_key(_QUEUES[role](NodeName(""))) for role in RQ_WORKERS
        ],
        "ROLES": [*RQ_WORKERS],
        "FIELDS": FIELDS,
        "HOLDER": HOLDER,
        "DIGITS": DIGITS,
        "ALIVE_S": liveness.ALIVE_S,
        "AWAY_S": liveness.REDIS_AWAY_S,
        "TTL_S": node_record.NODE_TTL_S,
        "BEAT_S": liveness.HEARTBEAT_S,
        "SETTLE_S": SETTLE_S,
    }
)


class Heartbeats:
    """
    The heartbeats of one node.

    Attributes:
        instance: The process that sends them.
        owns_name: There may be something to deregister.
        workers: By role, what returns the name of the RQ worker; nothing while that gives no sign.
        lost: Roles whose RQ worker Redis did not know at the last heartbeat.
        waiting: Roles on whose queue a job lay then.
    """

    instance: Instance

    def __init__(self, outbox: Outbox) -> None:
        """Take what a heartbeat reports beside the node's record."""
        self.outbox = outbox
        self.owns_name = False
        self.workers: Mapping[str, Callable[[], str]] = {}
        self.lost: frozenset[str] = frozenset()
        self.waiting: frozenset[str] = frozenset()
        self._left: Mapping[str, str] | None = None
        self.clock_offset = ClockOffset()
        self.counted, self.counted_at = command_count.commands_sent(), -math.inf
        self.commands_per_s: float | None = None
        self.daily = traffic.Daily(time.monotonic())

    def look_at_clock(self, connection: redis.Redis) -> float:
        """Return Redis' time, and note how far this node's clock is from it."""
        sent_s = steady_s()
        now = scripts.redis_seconds(connection)
        self.clock_offset.add(sent_s, now)
        return now

    def register(self, connection: redis.Redis, record: Node) -> None:
        """
        Take the name; the process that had it before is given the time to be heard, if it lives.

        Raises:
            ConfigError: Another live process has the name.
        """
        before, intent = Succession(), "claim"
        self.owns_name = True
        while isinstance(other := self.send(connection, record, intent), Other):
            is_first = before.note(other, time.monotonic())
            if other.word != "heard" or before.lives:
                raise refusal(record.name, record.address, other)
            if is_first:
                logger.info(
                    "%s was heard just now, on %s: waiting whether it lives", record.name, other
                )
            intent = "replace" if before.has_ended(time.monotonic()) else "claim"
            time.sleep(LOOK_S)

    def send(
        self, connection: redis.Redis, record: Node, intent: str = "beat"
    ) -> list[RunId] | Other:
        """Send one heartbeat: ids of overdue runs, or who has the name instead."""
        counted, counted_at = command_count.commands_sent(), time.monotonic()
        # Not since that was answered: a Redis that stood still may have answered just now.
        elapsed_s = counted_at - self.counted_at
        # After one that had to wait for Redis the next follows at once: too soon for a rate.
        is_long = elapsed_s >= liveness.HEARTBEAT_S / 2
        if is_long:
            is_first = elapsed_s == math.inf
            self.commands_per_s = None if is_first else (counted - self.counted) / elapsed_s
        fields = self._fields(record)
        sent_s, answer = self._exchange(connection, record.name, fields, intent)
        if _is_refusal(answer) and answer[0] == b"insist":
            text = "another worker began with the token of this node, on %s; it is refused"
            logger.warning(text, other_from(answer))
            sent_s, answer = self._exchange(connection, record.name, fields, "insist")
        if _is_refusal(answer):
            return other_from(answer)
        if is_long:
            self.counted, self.counted_at = counted, counted_at
        micros, overdue, lost, waiting = (
            answer if isinstance(answer, list) else (answer, [], [], [])
        )
        self.lost, self.waiting = _texts(lost), _texts(waiting)
        self.clock_offset.add(sent_s, micros / 1e6)
        ids = cast("list[bytes]", overdue)
        if odd := [run for run in ids if not run.isascii()]:
            connection.zrem(keyspace.RUNS_OPEN, *odd)  # no id of ours
        return [RunId(run.decode()) for run in ids if run.isascii()]

    def _fields(self, record: Node) -> dict[str, str]:
        """Return what the record is to be now."""
        clock, mine = self.clock_offset.estimate(), self.instance
        record = replace(
            record,
            boot=machine.boot_id(),
            netns=machine.network_namespace(),
            gateway=machine.gateway_mac(),
            outbox_bytes=self.outbox.waiting_bytes(),
            redis_commands_per_s=self.commands_per_s,
            redis_bytes_per_day=self._bytes_per_day(),
            clock_offset_ms=None if clock is None else clock.offset_ms,
            clock_offset_uncertainty_ms=None if clock is None else clock.uncertainty_ms,
        )
        fields = record.to_fields() | {OWNER: mine.token, INSTANCE: mine.id, FILE: mine.file}
        return fields | {field: self.workers.get(role, str)() for role, field in RQ_WORKERS.items()}

    def _bytes_per_day(self) -> int | None:
        traffic.look()
        # Over a Unix socket nothing is on a wire, and elsewhere than on Linux it is not known.
        return self.daily.add(time.monotonic(), traffic.total_bytes()) or None

    def _exchange(
        self, connection: redis.Redis, name: NodeName, fields: dict[str, str], intent: str
    ) -> tuple[float, Any]:
        """Send one heartbeat, and once more where it must be whole: when that was, the answer."""
        before, self._left = self._left, None  # unknown, until the answer is there
        if before is not None and intent == "beat":
            fields |= {field: before[field] for field in STEPS if _is_near(fields, before, field)}
            places = [i for i, field in enumerate(FIELDS) if fields[field] != before[field]]
            changed = [part for i in places for part in (i + 1, fields[FIELDS[i]])]
            beat = scripts.script(connection, "heard", "beat", before=CONSTANTS)
            sent_s = steady_s()
            answer = beat([], [msgpack.packb([name, _digest(before), *changed])])
            if answer != 0:
                self._left = fields
                return sent_s, answer
        beat = scripts.script(connection, "heard", "heartbeat", before=CONSTANTS)
        sent_s = steady_s()
        answer = beat([], [name, intent, *(fields[field] for field in FIELDS)])
        if not _is_refusal(answer):
            self._left = fields
        return sent_s, answer

    def deregister(self, connection: redis.Redis, name: NodeName) -> None:
        """Note that the node was stopped, and free its name, unless another process has it."""
        arguments = [self.instance.id, node_record.NODE_TTL_S, INSTANCE, OWNER, STOPPED]
        scripts.script(connection, "goodbye")([keyspace.node_key(name)], arguments)


def _is_refusal(answer: Any) -> bool:
    return isinstance(answer, list) and isinstance(answer[0], bytes)


def _digest(fields: Mapping[str, str]) -> str:
    whole = "\n".join(fields[field] for field in FIELDS).encode()
    return hashlib.sha1(whole, usedforsecurity=False).hexdigest()[:DIGITS]


def _is_near(now: Mapping[str, str], before: Mapping[str, str], field: str) -> bool:
    if not (now[field] and before[field]):
        return False
    new, old = float(now[field]), float(before[field])
    return abs(new - old) <= STEPS[field] * abs(old)


def _texts(words: Iterable[bytes]) -> frozenset[str]:
    return frozenset(word.decode() for word in words)
