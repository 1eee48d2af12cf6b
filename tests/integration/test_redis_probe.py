"""The redis probe against a real server: answered, cut in the middle, away; and within a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from slow_way import slow_way

from coordinator.embedded import EmbeddedServer
from coordinator.mesh import Mesh
from coordinator.runs.runs import of_run
from integration.nodes import cli, workers
from worker.model.measurement import Measurement, Outcome
from worker.model.options import RedisOptions, TcpOptions
from worker.node.redis_probe import measure
from worker.probes.icmp.engine import icmp_capability
from worker.wire.connection import server, way

pytestmark = pytest.mark.redis


def probe(url: str, options: RedisOptions) -> Measurement:
    (found,) = measure("r", "a", url, options, lambda: False)
    return found


def test_operations_are_timed_and_leave_nothing_behind(
    redis_url: str, connection: redis.Redis
) -> None:
    connection.config_resetstat()
    found = probe(redis_url, RedisOptions(count=5, interval_s=0.01, wait_s=60))
    calls = {name: one["calls"] for name, one in connection.info("commandstats").items()}
    assert (found.outcome, found.target, found.packet_loss_pct) == (Outcome.OK, "redis", 0.0)
    assert found.latency_ms is not None
    took_ms = found.detail.elapsed_s * 1000
    assert 0 < 5 * found.latency_ms < took_ms
    assert 0 < found.detail.locker_cycle_median_ms <= found.detail.locker_cycle_max_ms
    assert found.detail.locker_cycle_max_ms + 5 * found.latency_ms < took_ms
    # One more PING opens the connection.
    assert [calls[f"cmdstat_{name}"] for name in ("ping", "set", "del")] == [6, 5, 5]
    assert list(connection.scan_iter("ptzmesh:probe:*")) == []


def test_redis_that_dies_in_the_middle_shows_as_loss(redis_server: EmbeddedServer) -> None:
    asked = 0

    def die_after_five() -> bool:
        nonlocal asked
        asked += 1
        if asked == 6:
            redis_server.kill()
        return False

    options = RedisOptions(count=20, interval_s=0.01, wait_s=60)
    (found,) = measure("r", "a", redis_server.url, options, die_after_five)
    assert (found.outcome, found.packet_loss_pct) == (Outcome.OK, 75.0)
    assert found.detail.rtts_ms.count(None) == 15
    assert found.detail.last_error


@pytest.mark.parametrize("way_s", [0.3, pytest.param(2.0, marks=pytest.mark.long)])
def test_way_that_takes_longer_than_the_wait_is_a_number(redis_url: str, way_s: float) -> None:
    with slow_way(redis_url, way_s) as slow:
        connection = server.connect(slow.url)
        for _ in range(way.KEPT):  # what was asked before was asked of a server next door
            connection.ping()
        found = probe(slow.url, RedisOptions(count=2, interval_s=0.01, wait_s=way_s / 2))
        connection.close()
    assert (found.outcome, found.packet_loss_pct, found.error) == (Outcome.OK, 0.0, "")
    assert found.latency_ms is not None
    assert found.latency_ms >= 1000 * way_s
    assert found.detail.locker_cycle_median_ms >= 2000 * way_s
    # The clocks of the way and of what is measured are read one after the other.
    assert found.detail.wait_s >= 2.9 * way_s


def test_wait_is_what_was_asked_for_where_the_way_is_fast(redis_url: str) -> None:
    connection = server.connect(redis_url)
    for _ in range(way.KEPT):
        connection.ping()
    assert probe(redis_url, RedisOptions(count=1, wait_s=1.0)).detail.wait_s == 1.0
    connection.close()


def test_redis_that_is_away_is_a_finding(redis_server: EmbeddedServer) -> None:
    redis_server.kill()
    found = probe(redis_server.url, RedisOptions(count=3, interval_s=0.01, wait_s=0.2))
    assert (found.outcome, found.latency_ms) == (Outcome.NO_REPLY, None)
    assert found.error


@pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")
def test_phases_of_a_run_have_their_own_pairs(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    with workers(redis_url, connection, tmp_path, ["a", "b", "c"]):
        mesh = Mesh(redis_url)
        options = {"tcp": TcpOptions(port=9, count=3), "redis": RedisOptions(count=3)}
        run = mesh.run(probes=("redis", "tcp", "ping"), options=options).wait()
        found = [one for _, one in of_run(connection, run.id)]
        csv = str(tmp_path / "x.csv")
        assert cli(redis_url, "collect", "--csv", csv).returncode == 0
        assert cli(redis_url, "verify", run.id, "--csv", csv).returncode == 0
    assert [one.probe for one in found] == ["ping"] * 6 + ["tcp"] * 6 + ["redis"] * 3
    assert {one.outcome for one in found} == {Outcome.OK}
    assert run.matrix("redis").value("b", "redis") is not None
    assert run.state().expected == 15
