"""Lockers as an unchanged PTZJEPA holds them, to see that nobody touches them."""

from __future__ import annotations

import time

import redis
from ptzjepa import UnchangedLockers

PREFIXES = ("model_lockers", "dream_lockers")
LOCKERS = 2
EXPIRE_S = 1800
#: Redis answers later than it reads its clock, and whoever asks may be held up.
SLACK_S = 10.0


class HeldLockers:
    """
    Takes lockers and keeps them.

    Attributes:
        systems: One of PTZJEPA's objects a prefix.
    """

    def __init__(self, socket_url: str) -> None:
        """Speak to Redis over its socket: no cut of the lab is between."""
        self._redis = redis.Redis.from_url(socket_url)
        self.systems = [UnchangedLockers("unused", 0, None, one, LOCKERS) for one in PREFIXES]
        for system in self.systems:
            system.redis.close()
            system.redis = self._redis
        self.taken_at = 0.0

    def hold(self) -> None:
        """Take all of them."""
        for system in self.systems:
            for number in range(LOCKERS):
                assert system.acquire_locker(number) == number
        self.taken_at = time.monotonic()

    def keys(self) -> dict[str, str]:
        """Give the identifier that each key must hold."""
        return {
            f"{system.locker_prefix}:{number}": system.identifier
            for system in self.systems
            for number in range(LOCKERS)
        }

    def assert_untouched(self) -> None:
        """See that each has its value, and that its time runs as if nobody else were there."""
        left_s = EXPIRE_S - (time.monotonic() - self.taken_at)
        for key, identifier in self.keys().items():
            assert self._redis.get(key) == identifier.encode(), key
            assert abs(self._redis.pttl(key) / 1000 - left_s) < SLACK_S, key

    def assert_work(self) -> None:
        """See that each can be given up and taken again."""
        for system in self.systems:
            for number in range(LOCKERS):
                assert system.release_locker(number)
        self.hold()

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()
