"""
Near's turns: which of the far nodes it tests next, and when.

Whatever is free is taken, in the order preferred; where nothing is free, near sleeps until woken.
Tests of one run mostly last equally long, and then a mesh that keeps to the tournament's order
(`tournament`) needs the least time that is possible, while one that takes whatever is free needs up
to a fifth more. So near keeps order while that works, see `Order`, and leaves the node that it has
tested a moment to test it back.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import redis

from worker.model.names import NodeName
from worker.transfer.leases import (
    WAITING_TTL_S,
    Attempt,
    End,
    Lease,
    acquire,
    leave,
    new_token,
    release,
    wait,
)

#: How long the first in order is waited for, once near itself is free; longer by its way to Redis.
PATIENCE_S = 0.08
#: How long the last one is given to begin its own test with this node; likewise.
COURTESY_S = 0.04
#: A waiting node registers again long before its registration ends.
CALL_AGAIN_S = WAITING_TTL_S / 2
#: Nodes that wait for the same lease to lapse call within this time, not all at once.
LAPSE_SPREAD_MS = 50


class Order(Enum):
    """
    How near keeps to the tournament's order.

    KEPT: only the first in order is tried, and nobody is waited for.
    TRIED: near is free, the first in order is not: near waits `PATIENCE_S` for it in all.
        → KEPT when it is taken, and when near takes part in another's test meanwhile.
        → GIVEN_UP when that was in vain.
    GIVEN_UP: whatever is free is taken. For good: tests do not last equally long.
    """

    KEPT = "kept"
    TRIED = "tried"
    GIVEN_UP = "given up"


@dataclass
class Turns:
    """
    The turns of one node in one phase of a run.

    Attributes:
        connection: To Redis.
        near: The end that asks.
        remaining: The far ends still to test, in the order preferred.
        reserve_bytes: What each test may cost each end, at most.
        should_stop: Asked every `WAIT_SLICE_S` at least.
        order: Whether the first in order is still waited for.
    """

    connection: redis.Redis
    near: End
    remaining: list[End]
    reserve_bytes: int = 0
    should_stop: Callable[[], bool] = lambda: False
    order: Order = Order.KEPT
    _waits: bool = False
    _patient_until: float = 0.0
    _courteous_until: float = 0.0
    _over_budget: list[tuple[NodeName, NodeName]] = field(default_factory=list)

    def take(self) -> Lease | None:
        """Take a turn when there is one; None when nothing remains, or `should_stop`."""
        time.sleep(max(0.0, self._courteous_until - time.monotonic()))
        token = new_token()
        while self.remaining and not self.should_stop():
            tried = self.remaining if self.order is Order.GIVEN_UP else self.remaining[:1]
            self._waits = True  # or may do so: an answer may be lost
            attempt = acquire(
                self.connection, token, self.near, tried, reserve_bytes=self.reserve_bytes
            )
            self._set_aside(attempt)
            if attempt.lease is not None:
                self._waits = False
                self._drop({attempt.lease.far})
                if self.order is Order.TRIED:
                    self.order = Order.KEPT
                return attempt.lease
            self._sleep(attempt, self._wait_s(attempt))
        if self._waits:
            leave(self.connection, self.near.name)
            self._waits = False
        return None

    def finish(self, lease: Lease, *, spent_bytes: int | None = None) -> None:
        """Give a turn up; the next one leaves its far end a moment to test back."""
        asked_back = release(self.connection, lease, spent_bytes=spent_bytes)
        if asked_back and self.order is not Order.GIVEN_UP:
            self._courteous_until = time.monotonic() + COURTESY_S + lease.way_s

    def pop_over_budget(self) -> list[tuple[NodeName, NodeName]]:
        """Return far ends dropped since the last call: their test may exceed whose budget."""
        dropped, self._over_budget = self._over_budget, []
        return dropped

    def _wait_s(self, attempt: Attempt) -> float:
        """Go on from an attempt in vain; return how long it is worth to sleep at most."""
        if attempt.over_budget:
            return 0.0  # those are no longer in the order: the next one is tried at once
        if self.order is Order.GIVEN_UP:
            return CALL_AGAIN_S
        if attempt.near_held:
            self.order = Order.KEPT
            return CALL_AGAIN_S
        now = time.monotonic()
        if self.order is Order.KEPT:
            patience_s = PATIENCE_S + (self.remaining[0].way_s if self.remaining else 0.0)
            self.order, self._patient_until = Order.TRIED, now + patience_s
        if now >= self._patient_until:
            self.order = Order.GIVEN_UP
            return 0.0
        return self._patient_until - now

    def _set_aside(self, attempt: Attempt) -> None:
        dropped = [(far, far) for far in attempt.over_budget]
        if attempt.near_over_budget:
            dropped += [(end.name, self.near.name) for end in self.remaining]
        self._over_budget += dropped
        self._drop({far for far, _ in dropped})

    def _drop(self, names: set[NodeName]) -> None:
        self.remaining = [end for end in self.remaining if end.name not in names]

    def _sleep(self, attempt: Attempt, limit_s: float) -> None:
        """Sleep until another call is worth it: woken, something lapsed, or the limit."""
        if attempt.lapses_s is not None:
            spread_s = secrets.randbelow(LAPSE_SPREAD_MS) / 1000
            limit_s = min(limit_s, attempt.lapses_s + spread_s)
        until = time.monotonic() + limit_s
        while (left_s := until - time.monotonic()) > 0:
            if wait(self.connection, self.near.name, left_s) or self.should_stop():
                return
