"""
Two wire versions on one Redis: each refuses the other by name, and nothing is lost.

The other version is a copy of this package with other constants, in processes of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from coordinator.embedded import EmbeddedServer
from coordinator.mesh import Mesh
from coordinator.runs.advance import advance
from coordinator.runs.runs import of_run, read_run
from coordinator.runs.starting import start
from integration.nodes import cli, workers
from integration.other_version import Other, mixed_mesh, other_version
from worker.model.errors import OtherWire
from worker.model.measurement import Measurement, Outcome
from worker.model.options import PingOptions, ThroughputOptions
from worker.model.plan import Plan, PlannedNode
from worker.model.version import WIRE_VERSION
from worker.probes.icmp.engine import icmp_capability
from worker.probes.iperf3.tool import find_iperf3
from worker.publish.outbox import Outbox
from worker.wire import keyspace, scripts

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping"),
]

OURS, THEIRS = ("cam-1", "hub"), ("cam-2", "cam-3")


@pytest.fixture(scope="module", params=[-2, 1], ids=["older", "newer"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Other:
    """A copy of the package whose wire version is too old to be read, or one more than ours."""
    number = WIRE_VERSION + request.param
    return other_version(tmp_path_factory.mktemp("other"), number, f"9.9.{number}")


@pytest.fixture(scope="module")
def mixed(
    server_binary: Path, other: Other, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """A mesh of two nodes of ours and two of theirs."""
    folder = tmp_path_factory.mktemp("mixed")
    with mixed_mesh(other, folder, server_binary, OURS, THEIRS) as server:
        yield server


def plan_of(connection: redis.Redis, *names: str, **options: object) -> Plan:
    """Make a plan that no trigger would, as it does not look at versions."""
    addresses = {
        name: (connection.hget(keyspace.node_key(name), "address") or b"127.0.0.1").decode()
        for name in names
    }
    nodes = tuple(PlannedNode(name=name, address=addresses[name]) for name in names)
    everyone = tuple(range(len(nodes)))
    return Plan(nodes=nodes, sources=everyone, targets=everyone, **options)  # type: ignore[arg-type]  # options by name


def rows_of(mesh: Mesh, plan: Plan) -> list[Measurement]:
    """Start a plan, wait until it has ended, give its rows."""
    run, _ = start(mesh.connection, plan, join=False)
    mesh.open(run).wait()
    return [measurement for _, measurement in of_run(mesh.connection, run)]


def upgrade_line(other: Other, name: str) -> str:
    """Give what our side says of a node of theirs."""
    theirs = f"{name} (ptzmesh {other.version}, wire {other.wire})"
    return f"newer are {theirs}" if other.wire > WIRE_VERSION else f"upgrade {theirs}"


def test_a_run_leaves_out_nodes_of_another_version_and_names_them(
    mixed: EmbeddedServer, other: Other
) -> None:
    done = cli(mixed.url, "run", "--count", "1", "--json")
    assert done.returncode == 0, done.stderr
    measured = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["source"] for one in measured if "source" in one} == set(OURS)
    assert upgrade_line(other, "cam-2") in " ".join(done.stderr.split())


def test_a_node_of_another_version_that_is_named_is_refused_by_name(
    mixed: EmbeddedServer, other: Other
) -> None:
    done = cli(mixed.url, "run", "--nodes", "cam-1,cam-2")
    assert done.returncode == 2
    assert upgrade_line(other, "cam-2") in done.stderr
    theirs = other.cli(mixed.url, "run", "--nodes", "cam-1,cam-2")
    assert theirs.returncode == 2
    assert "cam-1" in theirs.stderr
    assert "upgrade" in theirs.stderr


def test_a_node_that_gets_a_plan_of_another_version_answers_with_rows(
    mixed: EmbeddedServer, other: Other
) -> None:
    mesh = Mesh(mixed.url)
    plan = plan_of(mesh.connection, "cam-1", "cam-2", options={"ping": PingOptions(count=1)})
    rows = {one.source: one for one in rows_of(mesh, plan)}
    assert rows["cam-1"].outcome is Outcome.OK
    assert rows["cam-2"].outcome is Outcome.DENIED
    assert rows["cam-2"].error.startswith("cam-2: the run is of wire version")
    assert f"this ptzmesh has {other.wire}" in rows["cam-2"].error


def test_a_node_that_is_asked_for_a_test_of_another_version_denies_it(
    mixed: EmbeddedServer, other: Other
) -> None:
    if find_iperf3().fault:
        pytest.skip("iperf3 is not installed")
    mesh = Mesh(mixed.url)
    options = {"throughput": ThroughputOptions(duration_s=1)}
    plan = plan_of(mesh.connection, "cam-1", "cam-2", options=options)
    rows = rows_of(mesh, plan)
    assert {one.outcome for one in rows} == {Outcome.DENIED}
    assert all(f"this ptzmesh has {other.wire}" in one.error for one in rows)


CARRY_ON = """
import sys, redis
from coordinator.runs.advance import advance
advance(redis.Redis.from_url(sys.argv[1]), sys.argv[2])
"""


def test_a_run_of_another_version_is_left_to_nodes_that_can_read_it(
    connection: redis.Redis, redis_url: str, other: Other
) -> None:
    run, _ = start(connection, plan_of(connection, "a", "b"))
    ours = {"address": "127.0.0.1", "wire": WIRE_VERSION}
    connection.hset(keyspace.node_key("c"), mapping=ours)
    connection.zadd(keyspace.NODES, {"c": scripts.redis_seconds(connection)})
    other.python(CARRY_ON, redis_url, run)
    assert read_run(connection, run).is_open
    assert connection.zscore(keyspace.RUNS_OPEN, run) == 0
    advance(connection, run)
    assert read_run(connection, run).status == "done"


def test_a_run_of_a_version_that_no_node_has_any_more_is_given_up(
    connection: redis.Redis, redis_url: str, other: Other
) -> None:
    run, _ = start(connection, plan_of(connection, "a", "b"))
    other.python(CARRY_ON, redis_url, run)
    assert read_run(connection, run).status == "cancelled"
    assert connection.zscore(keyspace.RUNS_OPEN, run) is None


def test_records_and_runs_of_another_version_are_kept_and_told(
    mixed: EmbeddedServer, other: Other, tmp_path: Path
) -> None:
    theirs = other.cli(mixed.url, "run", "--nodes", ",".join(THEIRS), "--count", "1")
    assert theirs.returncode == 0, theirs.stderr
    ours = cli(mixed.url, "run", "--nodes", ",".join(OURS), "--count", "1", "--new")
    assert ours.returncode == 0, ours.stderr
    csv = tmp_path / "mesh.csv"
    assert cli(mixed.url, "collect", "--csv", str(csv)).returncode == 0
    aside = [json.loads(line) for line in csv.with_name("mesh.csv.bad").read_text().splitlines()]
    assert sorted(one["fields"]["source"] for one in aside) == sorted(THEIRS)
    assert all(f"the record is of wire version {other.wire}" in one["why"] for one in aside)
    assert all("upgrade" in one["why"] for one in aside)
    listed = cli(mixed.url, "runs")
    assert listed.returncode == 0, listed.stderr
    assert "cam" not in listed.stderr
    told = re.search(r"run (\S+) is not shown: the run is of wire version", listed.stderr)
    assert told is not None, listed.stderr
    shown = cli(mixed.url, "show", told.group(1))
    assert shown.returncode == OtherWire.exit_code
    assert "upgrade" in shown.stderr


KEEP = """
import sys
from datetime import datetime, timezone
from pathlib import Path
from worker.model.measurement import Measurement, Outcome
from worker.publish.outbox import Letter, Outbox
found = Measurement(run="r", probe="ping", source="a", target="b", address="10.0.0.1",
                    outcome=Outcome.OK, error="")
Outbox(Path(sys.argv[1])).keep([Letter(1, found)])
"""


def test_results_that_another_version_left_on_the_disk_are_kept(
    redis_url: str, connection: redis.Redis, other: Other, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    other.python(KEEP, str(state / "cam-9.outbox"))
    left = (state / "cam-9.outbox").read_bytes()
    with workers(redis_url, connection, tmp_path, ["cam-9"]):
        assert Outbox(state / "cam-9.outbox").waiting_bytes() == 0
    kept = [path for path in state.glob("cam-9.outbox.*") if path.suffix[1:].isdigit()]
    assert [path.read_bytes() for path in kept] == [left]
    assert f"of wire version {other.wire}" in (tmp_path / "cam-9.log").read_text()
