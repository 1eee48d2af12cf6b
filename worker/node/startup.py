"""
A node that starts before its network, or before Redis, waits for them.

What passes by itself is logged once and waited for: no route, nothing that listens yet, a name that
does not resolve yet, a Redis that loads its data. What does not, ends the start at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import redis

from worker.host.stopping import StopAsked, stop_comes_within, stoppable
from worker.model.errors import RedisUnavailable
from worker.node.outage import REMIND_S
from worker.wire.connection import server

logger = logging.getLogger(__name__)

#: Between two tries: a network that has come up is not waited for in vain.
TRY_AGAIN_S = 3.0


def when_redis_is_there(url: str, enter: Callable[[], None], *, patient: bool) -> None:
    """
    Do what needs Redis; while that fails for what passes by itself, log so once and try again.

    Args:
        url: Of Redis, for what is logged.
        enter: What is done; it may be done in part, and again.
        patient: Wait; else the first failure is raised.

    Raises:
        RedisUnavailable: Redis cannot be used, and waiting does not help.
        StopAsked: A stop signal came; these are blocked, but in here.
    """
    began, logged_at = time.monotonic(), dict[str, float]()
    while (trouble := _trouble(url, enter)) is not None:
        if not (patient and trouble.passes):
            raise trouble
        if time.monotonic() - logged_at.get(str(trouble), float("-inf")) >= REMIND_S:
            logged_at[str(trouble)] = time.monotonic()
            logger.warning("waiting for Redis, tried again every %.0f s: %s", TRY_AGAIN_S, trouble)
        if stop_comes_within(TRY_AGAIN_S):
            raise StopAsked
    if logged_at:
        logger.warning("Redis is there after %.0f s", time.monotonic() - began)


def _trouble(url: str, enter: Callable[[], None]) -> RedisUnavailable | None:
    """Try once; return what kept it from being done."""
    try:
        with stoppable():
            enter()
    except RedisUnavailable as exc:
        return exc
    except redis.RedisError as exc:
        return server.unavailable(exc, url)
    return None
