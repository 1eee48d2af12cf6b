"""Asking the other end of a test for a server: when it counts as gone, and when Redis was away."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from waiting import wait_until

from integration.holding import held
from worker.transfer.answer import Answer, Request, send_answer
from worker.transfer.asking import ASTRAY_S, Gone, ask
from worker.transfer.keeper import Keeper
from worker.transfer.leases import End, Lease
from worker.wire import keyspace, scripts
from worker.wire.connection import server

pytestmark = pytest.mark.redis

REQUEST = Request(
    run="r",
    phase=0,
    performer=0,
    token="t.0",  # noqa: S106 - names a test
    number=0,
    family=4,
    idle_rtt_ms=None,
)
READY = Answer(port=5201, version="3")


def asked(connection: redis.Redis) -> Answer | Gone | None:
    """Ask n1, whose responder's word is there as soon as it is asked."""
    connection.delete(keyspace.ready_key("t.0"))
    send_answer(connection, "t.0", READY)
    lease = Lease(token="t", near="n0", far="n1")  # noqa: S106 - names a test
    keeper = Keeper(connection, lease)
    return ask(connection, "n1", REQUEST, timeout_s=60, keeper=keeper, should_stop=lambda: False)


def test_far_end_that_could_not_be_heard_while_redis_was_away_is_asked(
    connection: redis.Redis,
) -> None:
    now = scripts.redis_seconds(connection)
    connection.zadd(keyspace.NODES, {"n0": now - 40, "n1": now - 41})
    # Redis is back, and no node has been heard yet.
    assert asked(connection) == READY
    # This one has; the other one's next try is due within seconds.
    connection.zadd(keyspace.NODES, {"n0": now})
    connection.set(keyspace.BACK, now)
    assert asked(connection) == READY
    connection.delete(keyspace.BACK)
    assert asked(connection) == Gone("was not heard for 41 s")


@pytest.mark.parametrize("is_reported", [False, True])
def test_request_that_was_taken_by_nobody_who_lives_is_sent_again(
    redis_url: str, connection: redis.Redis, is_reported: bool
) -> None:
    """As Redis gives it to what is left over of a node that was cut off in silence."""
    queue = keyspace.queue_key(keyspace.serve_queue("n1"))
    connection.zadd(keyspace.NODES, {"n1": scripts.redis_seconds(connection)})
    keeper = Keeper(connection, held(connection, End(name="n0"), End(name="n1")))

    def ask_it() -> Answer | Gone | None:
        with server.connect(redis_url) as own:
            return ask(own, "n1", REQUEST, timeout_s=60, keeper=keeper, should_stop=bool)

    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(ask_it)
        wait_until(lambda: connection.llen(queue) == 1, "it is sent")
        (first,) = connection.lrange(queue, 0, -1)
        if is_reported:
            connection.hset(keyspace.job_key(first.decode()), "status", "started")
        connection.delete(queue)
        if not is_reported:
            wait_until(lambda: connection.llen(queue) == 1, "it is sent again")
            assert connection.lrange(queue, 0, -1) != [first]
        else:
            time.sleep(2 * ASTRAY_S)  # nothing is to happen
            assert not connection.llen(queue)
        send_answer(connection, "t.0", READY)
        assert asked.result(60) == READY
