"""A worker that runs says what is true now: tools, labels and limits of its settings file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import redis
from forked import START
from programs import environment_of, running_worker
from waiting import wait_until

from coordinator import Mesh
from coordinator.embedded import embedded_server
from coordinator.runs.runs import of_run
from integration.nodes import alive, cli, workers
from worker.identity.own_address import present_address
from worker.model.measurement import Measurement, Outcome
from worker.model.options import ThroughputOptions
from worker.probes.icmp.engine import icmp_capability
from worker.probes.iperf3.tool import find_iperf3
from worker.transfer import leases
from worker.wire.connection.server import connect
from worker.wire.node_record import Node
from worker.wire.registry import read_nodes

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping"),
    pytest.mark.skipif(bool(find_iperf3().fault), reason="no iperf3"),
]

#: What is found anew is told within this time; the rest is a busy machine's.
TOLD_S = 30.0


def node_a(connection: redis.Redis) -> Node:
    return next(node for node in read_nodes(connection) if node.name == "a")


def throughput_of(url: str, duration_s: int) -> Measurement:
    """Test the throughput from b to a."""
    options = {"throughput": ThroughputOptions(duration_s=duration_s)}
    mesh = Mesh(url)
    run = mesh.run(sources=["b"], targets=["a"], probes=["throughput"], options=options).wait()
    (row,) = [one for _, one in of_run(mesh.connection, run.id)]
    return row


def test_tools_labels_and_limits_that_change_are_told_and_heeded_without_a_restart(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    config, path = tmp_path / "ptzmesh.toml", tmp_path / "bin"
    path.mkdir()
    config.write_text('[worker]\nlabel = ["site=roof"]\nmax_bytes_per_day = 1000\n')
    with (
        workers(redis_url, connection, tmp_path, ["b", "c"]),
        running_worker(
            *(redis_url, "a", "127.0.0.1", tmp_path, ["-v"]),
            program=[*START, "--config", str(config)],
            env=environment_of(redis_url, PATH=str(path)),
        ),
    ):
        wait_until(lambda: alive(connection) == ["a", "b", "c"], "all are there")
        first = node_a(connection)
        assert (first.iperf3, first.labels, first.bytes_per_day) == ("", {"site": "roof"}, 1000)

        (path / "iperf3").symlink_to(str(shutil.which("iperf3")))
        config.write_text(
            '[worker]\nlabel = ["site=yard"]\nmax_duration = "2s"\nlink = ["cell=1"]\n'
        )

        def has_changed() -> bool:
            now = node_a(connection)
            told = (now.iperf3 != "", now.labels, now.bytes_per_day, now.links)
            return told == (True, {"site": "yard"}, None, {"cell": 1})

        wait_until(has_changed, "the node says what is true now", TOLD_S)
        row = throughput_of(redis_url, 3)
        assert row.outcome is Outcome.DENIED, row.error
        assert "over this node's limit of 2 s" in row.error
        row = throughput_of(redis_url, 1)
        assert row.outcome is Outcome.OK, row.error

        # Of a row that has begun, the tests that follow go by what is said by then.
        busy = leases.acquire(
            connection, "test", leases.End(name="x"), [leases.End(name="c")], ttl_s=600
        ).lease
        assert busy is not None
        options = {"throughput": ThroughputOptions(duration_s=1, bitrate_mbps=1)}
        run = Mesh(redis_url).run(
            sources=["a"], targets=["b", "c"], probes=["throughput"], options=options
        )
        wait_until(lambda: len(list(of_run(connection, run.id))) == 1, "b is tested, c is busy")
        limits = config.read_text()
        config.write_text(limits + "max_bytes_per_day = 1\n")
        leases.release(connection, busy)
        run.wait()
        found = {one.target: one for _, one in of_run(connection, run.id)}
        assert found["b"].outcome is Outcome.OK, found["b"].error
        assert found["c"].outcome is Outcome.OVER_BUDGET, found["c"].error
        assert found["c"].error.startswith("a: the test may cost")
        wait_until(lambda: node_a(connection).bytes_per_day == 1, "the budget is told", TOLD_S)
        config.write_text(limits)
        wait_until(lambda: node_a(connection).bytes_per_day is None, "the budget is lifted")

        # A job looks by itself: it does not wait for a heartbeat.
        (path / "iperf3").unlink()
        row = throughput_of(redis_url, 1)
        assert row.outcome is Outcome.TOOL_MISSING
        assert "a: iperf3 is not on PATH" in row.error

        # Nor do they of the worker's start hold again when the file is wrong, or goes missing.
        (path / "iperf3").symlink_to(str(shutil.which("iperf3")))
        for wrong in ("[worker]\nlabel = 5\n", "", None):
            if wrong is None:
                config.unlink()
            else:
                config.write_text(wrong)
            row = throughput_of(redis_url, 3)
            assert row.outcome is Outcome.DENIED, row.error
            assert "over this node's limit of 2 s" in row.error
        wait_until(lambda: "is gone" in node_a(connection).settings_fault, "it is told")
        assert node_a(connection).labels == {"site": "yard"}
        told = f"labels and limits stay as they were: settings file ({config}) is gone"
        assert f"a: {told}\n" in cli(redis_url, "nodes").stderr
        assert f"{told.partition(':')[0]}: a (" in cli(redis_url, "doctor").stdout
        assert (tmp_path / "a.log").read_text().count(told) == 1
        config.write_text('[worker]\nlabel = ["site=yard"]\nmax_duration = "1s"\n')
        wait_until(lambda: node_a(connection).settings_fault == "", "it is right again", TOLD_S)
        row = throughput_of(redis_url, 2)
        assert "over this node's limit of 1 s" in row.error, row


def test_loopback_end_of_a_tunnel_is_no_address_of_a_node(
    server_binary: Path, tmp_path: Path
) -> None:
    with embedded_server(tmp_path, binary=server_binary, unix=False) as server:
        connection = connect(server.url)
        connection.ping()
        assert present_address(connection, "10.0.0.5") == "10.0.0.5"
        connection.close()
    with embedded_server(tmp_path / "unix", binary=server_binary) as server:
        connection = connect(server.url)
        assert present_address(connection, "10.0.0.5") == "10.0.0.5"
        connection.close()
