"""Asking the other end of a test for a server: when it counts as gone, and when Redis was away."""

from __future__ import annotations

import pytest
import redis

from integration.rows import plan
from worker.model.measurement import Outcome
from worker.transfer.asking import Answer, Request, ask
from worker.transfer.leases import Lease
from worker.transfer.turns import Keeper
from worker.wire import keyspace, rq_jobs, scripts
from worker.wire.rows import Row

pytestmark = pytest.mark.redis

ROW = Row(run="r", plan=plan(2, probes=("throughput",)), phase=0, performer=0)
READY = rq_jobs.MsgpackSerializer.dumps(
    {"port": 5201, "version": "3", "outcome": "ok", "error": ""}
)


def asked(connection: redis.Redis) -> Answer | None:
    """Ask n1, whose responder's word is there as soon as it is asked."""
    connection.delete(keyspace.ready_key("t.0"))
    connection.rpush(keyspace.ready_key("t.0"), READY)
    (encounter,) = ROW.plan.encounters("throughput", 0)
    lease = Lease(token="t", near="n0", far="n1")  # noqa: S106 - names a test
    keeper = Keeper(connection, lease)
    return ask(connection, Request(ROW, encounter, 0, "t.0", None), keeper, lambda: False)


def test_far_end_that_could_not_be_heard_while_redis_was_away_is_asked(
    connection: redis.Redis,
) -> None:
    now = scripts.redis_seconds(connection)
    connection.zadd(keyspace.NODES, {"n0": now - 40, "n1": now - 41})
    # Redis is back, and no node has been heard yet.
    assert asked(connection) == Answer(port=5201, version="3")
    # This one has; the other one's next try is due within seconds.
    connection.zadd(keyspace.NODES, {"n0": now})
    connection.set(keyspace.BACK, now)
    assert asked(connection) == Answer(port=5201, version="3")
    connection.delete(keyspace.BACK)
    gone = asked(connection)
    assert gone is not None
    assert (gone.outcome, gone.gone) == (Outcome.TARGET_LOST, "was not heard for 41 s")
