"""
A node's heartbeats: they take its name, keep its record in Redis, and free the name in the end.

`lua/heartbeat.lua` decides who has a name; see `instance`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

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
from worker.wire.connection import command_count
from worker.wire.node_record import FILE, HOLDER, INSTANCE, OWNER, STOPPED, Node

logger = logging.getLogger(__name__)


class Heartbeats:
    """
    The heartbeats of one node.

    Attributes:
        instance: The process that sends them.
        owns_name: There may be something to deregister.
    """

    instance: Instance

    def __init__(self, outbox: Outbox) -> None:
        """Take what a heartbeat reports beside the node's record."""
        self.outbox = outbox
        self.owns_name = False
        self.clock_offset = ClockOffset()
        self.counted, self.counted_at = command_count.commands_sent(), -math.inf
        self.commands_per_s: float | None = None

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
        sent_s = steady_s()
        answer = self._exchange(connection, record, intent)
        if answer[0] == b"insist":
            text = "another worker began with the token of this node, on %s; it is refused"
            logger.warning(text, other_from(answer))
            sent_s = steady_s()
            answer = self._exchange(connection, record, "insist")
        if answer[0] != b"ok":
            return other_from(answer)
        if is_long:
            self.counted, self.counted_at = counted, counted_at
        _, seconds, micros, overdue = answer
        self.clock_offset.add(sent_s, int(seconds) + int(micros) / 1e6)
        ids = cast("list[bytes]", overdue)
        if odd := [run for run in ids if not run.isascii()]:
            connection.zrem(keyspace.RUNS_OPEN, *odd)  # no id of ours
        return [RunId(run.decode()) for run in ids if run.isascii()]

    def _exchange(self, connection: redis.Redis, record: Node, intent: str) -> Sequence[bytes]:
        clock, mine = self.clock_offset.estimate(), self.instance
        record = replace(
            record,
            boot=machine.boot_id(),
            netns=machine.network_namespace(),
            gateway=machine.gateway_mac(),
            outbox_bytes=self.outbox.waiting_bytes(),
            redis_commands_per_s=self.commands_per_s,
            clock_offset_ms=None if clock is None else clock.offset_ms,
            clock_offset_uncertainty_ms=None if clock is None else clock.uncertainty_ms,
        )
        keys = [keyspace.NODES, keyspace.node_key(record.name), keyspace.RUNS_OPEN, keyspace.BACK]
        fields = record.to_fields() | {OWNER: mine.token, INSTANCE: mine.id, FILE: mine.file}
        who = [record.name, mine.token, mine.id, mine.file, repr(record.since), intent]
        times = [liveness.ALIVE_S, liveness.REDIS_AWAY_S, node_record.NODE_TTL_S]
        times += [liveness.HEARTBEAT_S, SETTLE_S]
        flat = [part for pair in fields.items() for part in pair]
        beat = scripts.script(connection, "heartbeat")
        return cast("Sequence[bytes]", beat(keys, [*who, *times, *HOLDER, *flat]))

    def deregister(self, connection: redis.Redis, name: NodeName) -> None:
        """Note that the node was stopped, and free its name, unless another process has it."""
        arguments = [self.instance.id, node_record.NODE_TTL_S, INSTANCE, OWNER, STOPPED]
        scripts.script(connection, "goodbye")([keyspace.node_key(name)], arguments)
