"""
A performer's turns: which of the other nodes it tests next, and when.

Whatever is free is taken, in the order preferred; who finds nothing free sleeps until it is woken.
Tests of one run mostly last equally long, and then a mesh that keeps to the tournament's order
(`tournament`) needs the least time that is possible, while one that takes whatever is free needs up
to a fifth more. So a performer keeps order while that works: it gives the last one a moment to
test it back, and waits a moment for the first of its order. The first time that this is in vain it
stops, for good: then tests are not equally long, and taking what is free is best.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import redis

from worker.transfer.leases import (
    LEASE_TTL_S,
    WAITING_TTL_S,
    Attempt,
    End,
    Lease,
    acquire,
    leave,
    new_token,
    release,
    renew,
    wait,
)
from worker.wire.connection.server import severity

logger = logging.getLogger(__name__)

#: How long the first in order is waited for, once the performer itself is free.
PATIENCE_S = 0.08
#: How long the last one is given to begin its own test with this node.
COURTESY_S = 0.04
#: A waiting node registers anew long before its registration ends.
CALL_AGAIN_S = WAITING_TTL_S / 2
#: A test's cost is first noted this soon; see `Keeper`.
FIRST_NOTE_S = 1.0
#: Nodes that wait for the same lease to lapse call within this time, not all at once.
LAPSE_SPREAD_MS = 50


@dataclass
class Turns:
    """
    The turns of one performer in one phase of a run.

    Attributes:
        connection: To Redis.
        near: The end that asks.
        remaining: The far ends still to test, in the order preferred.
        reserve_bytes: What each test may cost each end, at most.
        should_stop: Asked every `WAIT_SLICE_S` at least.
        over_budget: Far ends that were dropped from `remaining`, each with the node whose budget
            the test would exceed.
        keeps_order: Whether the first in order is still waited for.
    """

    connection: redis.Redis
    near: End
    remaining: list[End]
    reserve_bytes: int = 0
    should_stop: Callable[[], bool] = lambda: False
    over_budget: list[tuple[str, str]] = field(default_factory=list)
    keeps_order: bool = True
    _courteous_until: float = 0.0

    def take(self) -> Lease | None:
        """
        Wait for a turn and take it.

        Returns:
            What is held, its far end no longer in `remaining`; None when nothing remains or
            `should_stop`.
        """
        time.sleep(max(0.0, self._courteous_until - time.monotonic()))
        token, impatient_at = new_token(), 0.0
        while self.remaining and not self.should_stop():
            tried = self.remaining[:1] if self.keeps_order else self.remaining
            attempt = acquire(
                self.connection, token, self.near, tried, reserve_bytes=self.reserve_bytes
            )
            self._set_aside(attempt)
            if attempt.lease is not None:
                self._drop({attempt.lease.far})
                return attempt.lease
            now, limit_s = time.monotonic(), CALL_AGAIN_S
            if attempt.near_held:
                impatient_at = 0.0
            elif self.keeps_order:
                impatient_at = impatient_at or now + PATIENCE_S
                limit_s = impatient_at - now
                self.keeps_order = limit_s > 0
            if limit_s > 0:
                self._sleep(attempt, limit_s)
        leave(self.connection, self.near.name)
        return None

    def finish(self, lease: Lease, *, spent_bytes: int | None = None) -> None:
        """Give a turn up; the next one leaves its far end a moment to test back."""
        asked_back = release(self.connection, lease, spent_bytes=spent_bytes)
        if asked_back and self.keeps_order:
            self._courteous_until = time.monotonic() + COURTESY_S

    def _set_aside(self, attempt: Attempt) -> None:
        found = [(name, name) for name in attempt.over_budget]
        if attempt.near_over_budget:
            found += [(end.name, self.near.name) for end in self.remaining]
        self.over_budget += found
        self._drop({name for name, _ in found})

    def _drop(self, names: set[str]) -> None:
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


class Keeper:
    """
    Renews one lease while its test runs, from within the test's `should_stop`.

    With `carried` it also notes in Redis what the test has cost by then, for one that is killed
    outright and settles nothing. The method: what the interface has carried since the lease was
    taken, other traffic on it included, and as much more as it will carry until the next note at
    the rate since the last one. The first note is made after `FIRST_NOTE_S`; who is killed before
    it leaves nothing.
    """

    def __init__(
        self,
        connection: redis.Redis,
        lease: Lease,
        *,
        ttl_s: float = LEASE_TTL_S,
        carried: Callable[[], int | None] | None = None,
    ) -> None:
        """Keep what was taken just now; `carried` counts an interface's bytes, if it can."""
        self._connection, self._lease, self._ttl_s = connection, lease, ttl_s
        now = time.monotonic()
        self._lapses_at = now + ttl_s
        self._carried = carried
        self._first = self._last = None if carried is None else carried()
        self._last_at = now
        self._renew_at = now + min(ttl_s / 3, ttl_s if self._first is None else FIRST_NOTE_S)

    def lost(self) -> bool:
        """Renew if it is time; True once the lease is another's, or lapsed: the test must end."""
        now = time.monotonic()
        if now < self._renew_at:
            return False
        next_s = self._ttl_s / 3
        cost = self._cost_bytes(now, next_s)
        try:
            if not renew(self._connection, self._lease, ttl_s=self._ttl_s, cost_bytes=cost):
                return True
        except redis.RedisError as exc:
            logger.log(severity(exc), "lease of %s not renewed: %s", self._lease.far, exc)
            self._renew_at = time.monotonic() + 1.0
            return time.monotonic() >= self._lapses_at
        self._lapses_at, self._renew_at = now + self._ttl_s, now + next_s
        return False

    def _cost_bytes(self, now: float, next_s: float) -> int:
        carried = None if self._carried is None else self._carried()
        if carried is None or self._first is None or self._last is None:
            return 0
        per_s = (carried - self._last) / max(now - self._last_at, FIRST_NOTE_S)
        self._last, self._last_at = carried, now
        # An interface that came up anew counts from 0.
        return max(0, round(carried - self._first + per_s * next_s))
