"""What a node logs while Redis is away, and which processes it reaps."""

from __future__ import annotations

import logging
import os
import time

import redis

from worker.host.orphans import reap
from worker.node.outage import Outage, RqLines


def test_an_outage_is_said_once_then_once_an_hour_then_its_end() -> None:
    outage, away = Outage(), redis.ConnectionError("refused")
    lines = [outage.failed(now, away) for now in range(0, 7300, 10)]
    said = [line for line in lines if line is not None]
    assert said[0] == "Redis is away, results wait on the disk until it is back: refused"
    assert said[1:] == [
        "Redis has been away for 1 h: refused",
        "Redis has been away for 2 h: refused",
    ]
    assert outage.answered(7300.0) == "Redis is back after 2 h 1 min"
    assert outage.answered(7310.0) is None


def test_a_right_that_lacks_is_no_outage() -> None:
    said = Outage().failed(0.0, redis.exceptions.NoPermissionError("no permission"))
    assert said == "Redis refuses what this node sends, results wait on the disk: no permission"


def test_a_password_that_is_refused_is_no_outage() -> None:
    said = Outage().failed(0.0, redis.AuthenticationError("invalid password"))
    assert said == "Redis refuses what this node sends, results wait on the disk: invalid password"


def record(level: int, text: str, exc: Exception | None = None) -> logging.LogRecord:
    info = None if exc is None else (type(exc), exc, None)
    return logging.LogRecord("rq.worker", level, "", 0, text, ("a",), info)


def test_rq_says_nothing_of_an_outage_and_no_error_of_anything_else() -> None:
    lines = RqLines()
    other = record(logging.ERROR, "Worker %s: job: exception raised while executing")
    assert lines.filter(other)
    assert (other.levelno, other.levelname, lines.lost_redis) == (30, "WARNING", False)
    assert not lines.filter(record(logging.ERROR, "Worker %s: could not connect to Redis instance"))
    away = redis.ConnectionError("gone")
    assert not lines.filter(record(logging.ERROR, "Worker %s: unhandled, quitting...", away))
    assert lines.lost_redis


def test_only_children_of_somebody_else_are_reaped() -> None:
    own = os.fork()
    if own == 0:
        os._exit(7)
    other = os.fork()
    if other == 0:
        os._exit(0)
    os.waitid(os.P_PID, other, os.WEXITED | os.WNOWAIT)
    os.waitid(os.P_PID, own, os.WEXITED | os.WNOWAIT)
    until = time.monotonic() + 60
    reaped = reap({own})
    assert own not in reaped
    assert os.waitpid(own, 0) == (own, 7 << 8)
    while other not in reaped and time.monotonic() < until:
        reaped += reap(set())
    assert other in reaped
