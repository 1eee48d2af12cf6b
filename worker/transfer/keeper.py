"""Keeping a lease while its test runs, and noting what the test has cost by then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import redis

from worker.transfer.leases import LEASE_TTL_S, Lease, renew
from worker.wire.connection.server import severity

logger = logging.getLogger(__name__)

#: A test's cost is first noted this soon; see `Keeper`.
FIRST_NOTE_S = 1.0


class Keeper:
    """
    Renews one lease while its test runs, from within the test's `should_stop`.

    With `carried` it also notes in Redis what the test has cost by then, for one that is killed
    outright and settles nothing. The method: what the interface has carried since the lease was
    taken, other traffic on it included, and as much more as it will carry until the next note at
    the rate since the last one. Before the first note, after `FIRST_NOTE_S`, nothing is left.
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
        self._lapses_at = lease.asked_at + ttl_s
        self._carried = carried
        self._first = self._last = None if carried is None else carried()
        self._last_at = now
        first_s = ttl_s if self._first is None else now + FIRST_NOTE_S - lease.asked_at
        self._renew_at = lease.asked_at + min(ttl_s / 3, first_s)

    @property
    def idle_s(self) -> float:
        """For how long there is nothing to do."""
        return max(0.0, self._renew_at - time.monotonic())

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
        # An interface that came up again counts from 0.
        return max(0, round(carried - self._first + per_s * next_s))
