"""
What passes by itself when Redis does not serve us: one list, for nodes and collectors alike.

redis-py gives most of Redis' refusals one class and a text; those of which `redis_trouble` says
that they pass by themselves get a class of their own where they are read (`command_count`).
"""

from __future__ import annotations

import redis

from worker.wire.connection.redis_trouble import trouble


class RedisPaused(redis.ResponseError):
    """Redis answers, and takes no writes, or serves nobody, for the moment."""


AWAY = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
    RedisPaused,
)
#: Of these, what waiting does not fix: a password, a right.
REFUSED = (redis.AuthenticationError, redis.exceptions.AuthorizationError)


def told_apart(exc: redis.ResponseError) -> redis.ResponseError:
    """
    Return an error under its own class where it passes by itself.

    >>> type(told_apart(redis.ResponseError("MISCONF Redis is configured to save"))).__name__
    'RedisPaused'
    >>> type(told_apart(redis.ResponseError("MOVED 5 10.0.0.1:6379"))).__name__
    'ResponseError'
    """
    if isinstance(exc, AWAY) or not trouble(str(exc), "")[1]:
        return exc
    return RedisPaused(str(exc))
