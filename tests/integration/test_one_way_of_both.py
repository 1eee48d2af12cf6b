"""A test of both directions, of which one is asked for: what it costs is told all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from coordinator import Mesh
from coordinator.results.matrix import make_report
from coordinator.runs.runs import of_run, read_run
from integration.nodes import workers
from worker.model.options import ThroughputOptions
from worker.probes.iperf3.tool import find_iperf3
from worker.probes.traffic import bytes_per_node
from worker.transfer.leases import spent_today

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(bool(find_iperf3().fault), reason="no iperf3"),
]


def test_direction_that_nobody_asked_for_is_in_what_tests_moved_and_in_no_row(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    both = ThroughputOptions(bytes_limit=400_000, bitrate_mbps=8, bidir=True)
    options = {"throughput": both}
    with workers(redis_url, connection, tmp_path, ["a", "b"]):
        mesh = Mesh(redis_url)
        run = mesh.run(sources=["a"], targets=["b"], probes=["throughput"], options=options).wait()
        (row,) = [one for _, one in of_run(connection, run.id)]
    assert (row.source, row.target, row.outcome.value) == ("a", "b", "ok")
    plan = read_run(connection, run.id).plan
    moved = make_report(plan, [row]).bytes_by_node
    one_way = row.detail.bytes_received
    most = bytes_per_node(plan)["a"]
    assert most is not None
    assert 1.5 * one_way < moved["a"] == moved["b"] <= most
    # Two directions, each rounded up to a byte.
    for name, spent in spent_today(connection, ["a", "b"]).items():
        assert moved[name] - 1 <= spent <= moved[name]
