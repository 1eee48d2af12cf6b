"""
`MultiLockerSystem`: a drop-in for PTZJEPA's class that records what its lockers cost.

Same constructor, keys, values and return values, so that the two exclude each other. PTZJEPA's
newer form acquires a locker by its number, the older takes any that is free; both calls work. Each
operation becomes a record; at about one in ten the way to Redis is pinged, beside it.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import redis

from worker.model.measurement import Outcome
from worker.monitor.guard import never_raises
from worker.monitor.lockers.notes import ACQUIRE, RELEASE, WAITING
from worker.monitor.network.network import log_network_metrics, network_stats, ping_beside
from worker.monitor.network.stats import Metrics, no_metrics
from worker.monitor.process import recorder
from worker.monitor.records.record import LOCKER, record
from worker.monitor.settings import url_of

#: Between two attempts; PTZJEPA's own.
RETRY_S = 0.1
#: Where nothing else is asked for: of the newer form, and of the older, which also waits as long.
EXPIRE_S, OLDER_EXPIRE_S = 1800, 10
#: A share of operations after which the way to Redis is measured.
MEASURED_SHARE = 0.1
#: How often a wait is recorded while it goes on.
STILL_WAITING_S = 30.0

#: Deletes a locker if it is ours, in one step. Returns: deleted, what it held, milliseconds left.
RELEASE_SCRIPT = """
local held = redis.call('GET', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if held == ARGV[1] then return {redis.call('DEL', KEYS[1]), held, left} end
return {0, held, left}
"""


@dataclass
class _Attempts:
    """What the attempts of one operation have taken so far."""

    expire_s: int
    begun: float = field(default_factory=time.monotonic)
    started_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    count: int = 0
    seconds: float = 0.0
    longest_s: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds
        self.longest_s = max(self.longest_s, seconds)

    @property
    def mean_ms(self) -> float | None:
        return self.seconds / self.count * 1e3 if self.count else None


class MultiLockerSystem:
    """
    Numbered lockers in Redis, each held by one process at a time, until released or expired.

    Attributes:
        redis: The connection, on database 0.
        identifier: What a locker that is ours holds.
    """

    def __init__(
        self,
        redis_host: str,
        redis_port: int,
        redis_password: str | None,
        locker_prefix: str,
        num_lockers: int,
        expire_in_sec: int | None = None,
        acquire_timeout: float = 10,
    ) -> None:
        """
        Connect when first used.

        Args:
            redis_host: Where Redis is.
            redis_port: Its port.
            redis_password: None when it has none.
            locker_prefix: Locker 3 is the key `<locker_prefix>:3`.
            num_lockers: How many there are, counted from 0.
            expire_in_sec: Whole seconds after which a locker is free, released or not; None is
                1800 s for one acquired by its number, 10 s for any that was free.
            acquire_timeout: Seconds that an acquire by number tries for.
        """
        self.redis = redis.Redis(host=redis_host, port=redis_port, password=redis_password, db=0)
        self.identifier = str(uuid.uuid4())
        self.redis_host, self.redis_port = redis_host, redis_port
        self.locker_prefix, self.num_lockers = locker_prefix, num_lockers
        self.expire_in_sec = EXPIRE_S if expire_in_sec is None else expire_in_sec
        self.acquire_timeout = acquire_timeout
        self._expire_any_s = OLDER_EXPIRE_S if expire_in_sec is None else expire_in_sec
        self._release = self.redis.register_script(RELEASE_SCRIPT)
        self._held_since: dict[Any, float] = {}
        # Of its own: PTZJEPA may have seeded the module's, and counts on what it gives.
        self._random = random.Random()  # noqa: S311 - chooses when to measure
        self._offer_redis(redis_password)
        self._measure_beside()

    def acquire_locker(self, locker_num: int | None = None) -> int | None:
        """
        Try to take a locker every 0.1 s until `acquire_timeout` seconds have passed.

        Without a number each locker is tried in turn, for as long as it would be held.

        Returns:
            Its number, which may be 0, or None.

        Raises:
            redis.RedisError: Redis could not be asked.
        """
        if locker_num is None:
            return self._acquire(None, range(self.num_lockers), self._expire_any_s)
        return self._acquire(locker_num, (locker_num,), self.expire_in_sec)

    def _acquire(self, wanted: int | None, numbers: Sequence[int], expire_s: int) -> int | None:
        attempts = _Attempts(expire_s)
        deadline = attempts.begun + (expire_s if wanted is None else self.acquire_timeout)
        recorded_at = attempts.begun
        while time.monotonic() < deadline:
            for number in numbers:
                if self._take(number, attempts):
                    self._note_acquire(ACQUIRE, number, attempts, Outcome.OK)
                    return number
            if time.monotonic() - recorded_at >= STILL_WAITING_S:
                recorded_at = time.monotonic()
                self._note_acquire(WAITING, wanted, attempts, Outcome.TARGET_BUSY)
            time.sleep(RETRY_S)
        self._note_acquire(ACQUIRE, wanted, attempts, Outcome.TARGET_BUSY)
        return None

    def _take(self, number: int, attempts: _Attempts) -> bool:
        name, asked = f"{self.locker_prefix}:{number}", time.monotonic()
        try:
            taken = self.redis.set(name, self.identifier, nx=True, ex=attempts.expire_s)
        except redis.RedisError as exc:
            self._note_failure(ACQUIRE, number, attempts, exc)
            raise
        answered = time.monotonic()
        attempts.add(answered - asked)
        if taken:
            self._held_since[number] = answered
        return bool(taken)

    def release_locker(self, locker_num: int) -> bool:
        """
        Free a locker, if it is still ours.

        Raises:
            redis.RedisError: Redis could not be asked.
        """
        attempts = _Attempts(self.expire_in_sec)
        name = f"{self.locker_prefix}:{locker_num}"
        try:
            deleted, held, left_ms = self._release(keys=[name], args=[self.identifier])
        except redis.RedisError as exc:
            self._note_failure(RELEASE, locker_num, attempts, exc)
            raise
        attempts.add(time.monotonic() - attempts.begun)
        self._note_release(locker_num, attempts, bool(deleted), held, left_ms)
        return bool(deleted)

    @never_raises(no_metrics)
    def measure_network(self) -> Metrics:
        """Measure the way to Redis now, on the caller's thread; takes two to three seconds."""
        return log_network_metrics(self.redis_host, throughput=False)

    @property
    def network_stats(self) -> list[Metrics]:
        """Return the last metrics of the way to Redis."""
        return network_stats[self.redis_host]

    @never_raises(lambda: None)
    def _note_acquire(
        self, operation: str, locker_num: int | None, attempts: _Attempts, outcome: Outcome
    ) -> None:
        taken = "each locker was" if locker_num is None else "the locker was"
        error = "" if outcome is Outcome.OK else f"{taken} taken all the time"
        refused = attempts.count - (outcome is Outcome.OK)
        detail = {"contended": refused, "rtt_max_ms": attempts.longest_s * 1e3}
        self._note(operation, locker_num, attempts, outcome, error, detail)
        if operation is ACQUIRE and self._random.random() < MEASURED_SHARE:
            self._measure_beside()

    @never_raises(lambda: None)
    def _note_release(
        self, locker_num: int, attempts: _Attempts, deleted: bool, held: bytes | None, left_ms: int
    ) -> None:
        since = self._held_since.pop(locker_num, None)
        detail = {
            "held_s": None if since is None else attempts.begun - since,
            "left_s": left_ms / 1000 if deleted and left_ms >= 0 else None,
            # What we never took, or freed before, has not expired under us.
            "expired": None if since is None and not deleted else not deleted,
        }
        state = "is free" if held is None else "is another's"
        error = "" if deleted else f"the locker was not ours any more: it {state}"
        outcome = Outcome.OK if deleted else Outcome.DENIED
        self._note(RELEASE, locker_num, attempts, outcome, error, detail)

    @never_raises(lambda: None)
    def _note_failure(
        self, operation: str, locker_num: int, attempts: _Attempts, exc: Exception
    ) -> None:
        late = isinstance(exc, redis.TimeoutError)
        outcome = Outcome.TIMEOUT if late else Outcome.UNREACHABLE
        self._note(operation, locker_num, attempts, outcome, f"{type(exc).__name__}: {exc}", {})

    def _note(
        self,
        operation: str,
        locker_num: int | None,
        attempts: _Attempts,
        outcome: Outcome,
        error: str,
        detail: dict[str, Any],
    ) -> None:
        number = None if locker_num is None else int(locker_num)  # PTZJEPA's may be numpy's
        common = {
            "operation": operation,
            "prefix": self.locker_prefix,
            "locker": number,
            "identifier": self.identifier,
            "pid": os.getpid(),
            "lockers": int(self.num_lockers),
            "expire_s": int(attempts.expire_s),
            "attempts": attempts.count,
            "elapsed_s": time.monotonic() - attempts.begun,
        }
        recorder().add(
            record(
                probe=LOCKER,
                target=f"{self.locker_prefix}:{'any' if number is None else number}",
                address=self.redis_host,
                outcome=outcome,
                error=error,
                started_at=attempts.started_at,
                latency_ms=attempts.mean_ms,
                detail={**common, **detail},
            )
        )

    @never_raises(lambda: None)
    def _offer_redis(self, password: str | None) -> None:
        """Records go to the lockers' own Redis when no other is configured."""
        recorder().offer_redis(url_of(self.redis_host, self.redis_port, password))

    def _measure_beside(self) -> None:
        ping_beside("redis", self.redis_host)
