"""`ptzmesh test` with a Redis: from real nodes, which may die, as Redis may."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from waiting import wait_until

from coordinator.embedded import EmbeddedServer
from integration.cli_test_calls import (
    check_places,
    document,
    pictures,
    run,
    under_way,
)
from integration.nodes import workers
from worker.probes.icmp.engine import icmp_capability
from worker.probes.iperf3.tool import find_iperf3
from worker.wire import keyspace

pytestmark = pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")


@pytest.fixture
def mesh(redis_url: str, connection: redis.Redis, tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "nodes"
    folder.mkdir()
    with workers(redis_url, connection, folder, ["cam-1", "hub", "cam-2"]):
        yield redis_url


BAD_NODES = [
    ("hub", "--nodes", "cam-1,nobody"),
    ("nobody", "--nodes", "cam-1"),
    ("127.0.0.2", "--nodes", "cam-1"),
    ("hub", "--nodes", "hub"),
    ("hub", "--nodes", "cam-1", "--throughput", "--port", "5201"),
    ("hub", "--nodes", "cam-1", "-d", "28800"),
]


@pytest.mark.redis
def test_target_may_be_the_name_of_a_node(tmp_path: Path, mesh: str) -> None:
    out = tmp_path / "out"
    words = ("hub", "-d", "1", "-i", "1", "--no-plot", "--out", str(out))
    assert run(tmp_path, *words, url=mesh).returncode == 0
    assert (document(out)["target"], document(out)["address"]) == ("hub", "127.0.0.2")


@pytest.mark.redis
def test_silent_redis_does_not_keep_a_host_from_being_tested(tmp_path: Path) -> None:
    words = ("localhost", "-d", "1", "-i", "1", "--no-plot", "--out", str(tmp_path))
    done = run(tmp_path, *words, url="redis://127.0.0.1:1")
    assert done.returncode == 0
    assert "taken for a host name" in done.stderr


@pytest.mark.redis
def test_nodes_test_at_once_and_each_has_its_series(
    tmp_path: Path, mesh: str, connection: redis.Redis
) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    words = ("hub", "--nodes", "cam-1,cam-2", "-d", "12", "-i", "3", "--out", str(out))
    done = run(tmp_path, *words, url=mesh)
    assert done.returncode == 0, done.stderr
    found = document(out)
    assert found["sources"] == ["cam-1", "cam-2"]
    for series in found["series"]:
        check_places(series, found["started_at"], 3, 4)
        assert all(0 < latency < 1000 for latency in series["latencies"])
        assert {one["target"] for one in series["rounds"]} == {"hub"}
    assert len(pictures(out)) == 1
    rounds = [one for series in found["series"] for one in series["rounds"]]
    runs = {one["run"] for one in rounds}
    numbers = {one["round"] for one in rounds}
    assert connection.zcard(keyspace.RUNS) == len(runs) == len(numbers), "one run a round"
    assert len(rounds) > len(runs), "of all sources"


@pytest.mark.redis
def test_bad_nodes_are_refused_before_anything_is_enqueued(
    tmp_path: Path, mesh: str, connection: redis.Redis
) -> None:
    for words in BAD_NODES:
        done = run(tmp_path, *words, "--out", str(tmp_path / "out"), url=mesh)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), (words, done.stderr)
        assert connection.zcard(keyspace.RUNS) == 0, words


@pytest.mark.redis
def test_ctrl_c_keeps_what_nodes_measured(tmp_path: Path, mesh: str) -> None:
    out = tmp_path / "out"
    words = ("hub", "--nodes", "cam-1", "-d", "60", "-i", "1", "--no-plot")
    with under_way(out, *words, url=mesh) as (process, rounds):
        wait_until(lambda: len(rounds) >= 2, "two rounds")
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    assert len(document(out)["latencies"]) == len(rounds) >= 2


@pytest.mark.redis
def test_throughput_of_nodes_goes_through_the_mesh(tmp_path: Path, mesh: str) -> None:
    if find_iperf3().fault:
        pytest.skip("iperf3 is not installed")
    out = tmp_path / "out"
    words = ("hub", "--nodes", "cam-1,cam-2", "--throughput", "--bitrate", "20")
    done = run(tmp_path, *words, "-d", "1", "-i", "5", "--no-plot", "--out", str(out), url=mesh)
    assert done.returncode == 0, done.stderr
    for series in document(out)["series"]:
        (mbps,) = series["throughputs"]
        assert 1 < mbps < 25  # less where it was held up


@pytest.mark.redis
def test_node_that_dies_leaves_a_gap_and_the_others_go_on(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    out, folder = tmp_path / "out", tmp_path / "nodes"
    folder.mkdir()
    words = ("hub", "--nodes", "cam-1,cam-2", "-d", "20", "-i", "2", "--no-plot")
    with (
        workers(redis_url, connection, folder, ["cam-1", "hub", "cam-2"]) as nodes,
        under_way(out, *words, url=redis_url) as (process, rounds),
    ):
        wait_until(lambda: len({one["source"] for one in rounds}) == 2, "a round of both")
        nodes["cam-2"].kill()
        killed_at = len(rounds)
        assert process.wait(300) == 0
    found = {one["source"]: one for one in document(out)["series"]}
    assert len([one for one in rounds[killed_at:] if one["source"] == "cam-1"]) >= 3
    assert None not in found["cam-1"]["latencies"]
    lost = [one for one in found["cam-2"]["rounds"] if one["outcome"] == "source_lost"]
    assert lost
    assert all(one["latency_ms"] is None for one in lost)
    assert all(one["packet_loss_pct"] is None for one in lost)


@pytest.mark.redis
def test_redis_that_is_away_for_a_while_costs_only_the_rounds_of_that_time(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    out, folder = tmp_path / "out", tmp_path / "nodes"
    folder.mkdir()
    words = ("hub", "--nodes", "cam-1", "-d", "600", "-i", "2", "--no-plot")
    with (
        redis.Redis.from_url(redis_server.url) as connection,
        workers(redis_server.url, connection, folder, ["cam-1", "hub"]),
        under_way(out, *words, url=redis_server.url) as (process, rounds),
    ):
        wait_until(lambda: len(rounds) >= 2, "two rounds")
        redis_server.kill()
        time.sleep(4)  # as long as it is away
        redis_server.start()
        before = answered(rounds)
        wait_until(lambda: answered(rounds) >= before + 2, "two rounds after it came back")
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    found = document(out)["series"][0]["rounds"]
    assert answered(found) >= 4
    assert answered(found) < max(one["round"] for one in found) + 1, "some were left out"


def answered(rounds: list[dict[str, Any]]) -> int:
    return len([one for one in rounds if one["latency_ms"] is not None])


@pytest.mark.redis
def test_redis_that_does_not_come_back_ends_the_test_and_keeps_what_was_measured(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    out, folder = tmp_path / "out", tmp_path / "nodes"
    folder.mkdir()
    words = ("hub", "--nodes", "cam-1", "-d", "12", "-i", "2", "--no-plot")
    with (
        redis.Redis.from_url(redis_server.url) as connection,
        workers(redis_server.url, connection, folder, ["cam-1", "hub"]),
        under_way(out, *words, url=redis_server.url) as (process, rounds),
    ):
        wait_until(lambda: len(rounds) >= 1, "a round")
        redis_server.kill()
        assert process.wait(300) == 3
    assert len(document(out)["latencies"]) >= 1
