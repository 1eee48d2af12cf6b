"""What a node measures: registered nodes, at addresses of one other machine, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from programs import start_worker
from waiting import wait_until

from coordinator import Mesh
from coordinator.runs.runs import of_run
from integration.nodes import alive, assert_mesh_measures, cli, workers
from worker.model.errors import ConfigError
from worker.model.measurement import Measurement, Outcome
from worker.model.options import PingOptions
from worker.model.plan import Plan, PlannedNode
from worker.model.probe import with_options
from worker.probes.icmp.engine import icmp_capability
from worker.wire import keyspace

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping"),
]

#: RFC 5737: an address that no machine has, so that a node which says it is its own is routable.
ROUTABLE = "198.51.100.7"
BRIEF = PingOptions(count=1, interval_s=0.01, wait_s=0.5)


@contextmanager
def node(
    url: str, connection: redis.Redis, folder: Path, address: str, *more: str
) -> Iterator[None]:
    process = start_worker(url, "a", address, folder, more)
    try:
        wait_until(lambda: alive(connection) == ["a"], "it is registered")
        yield
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(60)


def measured(url: str, target: str, name: str = "elsewhere", probe: str = "ping") -> Measurement:
    """Have node a measure a target that a plan names."""
    mesh = Mesh(url)
    nodes = (PlannedNode(name="a", address=_address(mesh)), PlannedNode(name=name, address=target))
    plan = Plan(
        nodes=nodes, sources=(0,), targets=(1,), options=with_options([probe], {"ping": BRIEF})
    )
    run = mesh.start(plan, join=False).wait()
    ((_, found),) = of_run(mesh.connection, run.id)
    return found


def _address(mesh: Mesh) -> str:
    return next(node.address for node in mesh.nodes() if node.name == "a")


def test_node_measures_who_is_not_registered_only_if_its_own_policy_says_so(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    with node(redis_url, connection, tmp_path, "127.0.0.1"):
        found = measured(redis_url, "127.0.0.9")
        assert found.outcome is Outcome.DENIED
        assert "not a registered node" in found.error
    option = "--allow-unregistered-targets"
    with node(redis_url, connection, tmp_path, "127.0.0.1", option):
        assert measured(redis_url, "127.0.0.9").outcome is Outcome.OK
        assert measured(redis_url, "127.0.0.9", probe="tcp").outcome is Outcome.OK
        assert measured(redis_url, "127.255.255.255").outcome is Outcome.DENIED


def test_policy_can_stand_in_the_settings_file(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    settings = tmp_path / "ptzmesh.toml"
    settings.write_text("[worker]\nallow_unregistered_targets = true\n")
    done = cli(redis_url, "--config", str(settings), "worker", "--address", "0x7f.1")
    assert "0x7f.1" in done.stderr  # the file was taken, and only the address refused
    assert done.returncode == 2


@pytest.mark.parametrize("target", ["127.0.0.9", "::1", "localhost"])
def test_node_with_a_routable_address_refuses_loopback_though_it_is_registered(
    redis_url: str, connection: redis.Redis, tmp_path: Path, target: str
) -> None:
    connection.hset(keyspace.node_key("b"), "address", target)
    with node(redis_url, connection, tmp_path, ROUTABLE, "--allow-unregistered-targets"):
        found = measured(redis_url, target, "b")
    assert found.outcome is Outcome.DENIED
    assert "loopback" in found.error
    assert found.address == target


def test_loopback_of_another_machine_is_not_this_one(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    with node(redis_url, connection, tmp_path, "127.0.0.1"):
        # As of two machines that both reach Redis through a tunnel.
        own = {k.decode(): v for k, v in connection.hgetall(keyspace.node_key("a")).items()}
        for name, facts in {"b": own, "c": {**own, "boot": "another"}}.items():
            record = {**facts, "address": "127.0.0.1", "owner": name, "place": ""}
            connection.hset(keyspace.node_key(name), mapping=record)
        assert measured(redis_url, "127.0.0.1", "b").outcome is Outcome.OK
        for probe in ("ping", "tcp"):
            found = measured(redis_url, "127.0.0.1", "c", probe)
            assert found.outcome is Outcome.WRONG_HOST
            assert found.error.startswith("127.0.0.1 is an address of a itself, not of c from here")
            assert found.latency_ms is None


def test_damaged_record_of_a_node_is_left_out_of_the_registry(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    with workers(redis_url, connection, tmp_path, ["a", "b"]):
        (now,) = (connection.time()[0],)
        connection.zadd(
            keyspace.NODES, {b"\xff\xfe": now, "-x": now, "list": now, "odd": now, "closed": now}
        )
        connection.rpush(keyspace.node_key("list"), "x")
        connection.hset(keyspace.node_key("odd"), mapping={"address": "-c", "outbox": "x"})
        limits = {"address": "127.0.0.1", "links": '{"uplink": "one"}'}
        connection.hset(keyspace.node_key("closed"), mapping=dict(limits))
        for name in ("ever", "never"):  # heard at no time
            connection.hset(keyspace.node_key(name), "address", "127.0.0.1")
        connection.zadd(keyspace.NODES, {"ever": "inf", "never": "-inf"})
        connection.hset(keyspace.node_key("a"), mapping={"outbox": "many", "ports": "²-³"})
        connection.hset(keyspace.node_key("a"), "clock_offset_ms", "nan")
        mesh = Mesh(redis_url)
        assert [found.name for found in mesh.nodes()] == ["a", "b"]
        assert_mesh_measures(redis_url)
        assert cli(redis_url, "nodes", "--json").returncode == 0
        assert cli(redis_url, "nodes").returncode == 0


@pytest.mark.parametrize("option", ["--nodes", "--sources", "--targets"])
@pytest.mark.parametrize("name", ["-x", "a\nb", "x" * 65, "a/b", "*", "ü", "a b"])
def test_name_on_the_command_line_is_refused_in_one_line(
    redis_url: str, option: str, name: str
) -> None:
    done = cli(redis_url, "run", f"{option}={name}")
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("side", ["nodes", "sources", "targets"])
@pytest.mark.parametrize("name", ["-x", "a\nb", "x" * 65, "", "\x1b[31m"])
def test_name_in_the_python_interface_is_refused_in_one_line(
    redis_url: str, side: str, name: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Mesh(redis_url).plan(**{side: [name]})  # type: ignore[arg-type]
    assert str(caught.value).isprintable()
