"""`ptzmesh doctor`: each fault is made for real, and is found with the command that fixes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from waiting import wait_until

from coordinator.checks.health import missing_workers
from coordinator.checks.machine import SET_CLOCK
from coordinator.checks.refusals import refused
from coordinator.embedded import EmbeddedServer
from integration.doctor_calls import beat, doctor, may_ping
from integration.nodes import cli, workers
from worker.model.version import WIRE_VERSION
from worker.node.refusals import Cause, entry_of
from worker.wire import keyspace, liveness, rq_jobs, scripts

pytestmark = pytest.mark.redis


@may_ping
def test_a_mesh_that_is_well_has_no_failed_check(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    with workers(redis_url, connection, tmp_path, ["a", "b"]):
        assert cli(redis_url, "run", "--count", "2").returncode == 0
        cli(redis_url, "collect", "--csv", str(tmp_path / "x.csv"))
        wait_until(lambda: not missing_workers(connection, ["a", "b"]), "both serve their queues")
        said = doctor(redis_url, "--name", "a", "--state-dir", str(tmp_path / "state"))
        assert said.failed() == set(), said.text
        assert said.code == 0
        assert "skipped" not in {one["status"] for one in said.lines}, said.text
        assert said["own heartbeat"]["values"]["seen_s"] < liveness.ALIVE_S
        assert 0 < said["reachable"]["values"]["rtt_ms"] < 1000
        assert said["collector"]["message"].endswith("has all")
        assert said["our memory"]["values"]["stream_bytes"] > 0
        assert {one["values"]["limit"] for one in said.lines if one["check"] == "limit"} >= {
            "stream_entries", "stream_bytes", "results_per_s", "commands_per_s",
        }  # fmt: skip


def test_what_concerns_a_node_is_skipped_where_none_is(redis_url: str, tmp_path: Path) -> None:
    said = doctor(redis_url, "--state-dir", str(tmp_path / "none"))
    assert said.code == 0
    for name in ("icmp", "iperf3", "state folder", "outbox", "own heartbeat"):
        assert said[name]["status"] == "skipped"
        assert "not a node here" in said[name]["message"]
    assert not (tmp_path / "none").exists()


def test_redis_that_does_not_answer_exits_3_and_this_machine_is_looked_at_all_the_same(
    tmp_path: Path,
) -> None:
    said = doctor(f"unix://{tmp_path}/none.sock", "--name", "a", "--state-dir", str(tmp_path))
    assert said.code == 3
    assert said["reachable"]["status"] == "fail"
    assert said["state folder"]["status"] == "ok"


def test_a_wrong_password_exits_3_and_is_not_repeated(redis_server: EmbeddedServer) -> None:
    connection = redis.Redis.from_url(redis_server.url)
    connection.config_set("requirepass", "hunter2")
    said = doctor(redis_server.url.replace("unix://", "unix://:swordfish@"))
    assert said.code == 3
    assert "password" in said["reachable"]["message"]
    right = doctor(redis_server.url.replace("unix://", "unix://:hunter2@"))
    assert right["reachable"]["status"] == "ok"
    assert "swordfish" not in said.text
    assert "hunter2" not in right.text


def test_settings_of_redis_that_lose_data_are_found(redis_server: EmbeddedServer) -> None:
    connection = redis.Redis.from_url(redis_server.url)
    assert doctor(redis_server.url)["persistence"]["status"] == "ok"
    connection.config_set("appendonly", "no")
    connection.config_set("maxmemory-policy", "volatile-lru")  # lockers have an expiry
    said = doctor(redis_server.url)
    assert (said.code, said.failed()) == (2, {"eviction"})
    assert said["persistence"]["status"] == "warn"
    for check in ("eviction", "persistence"):
        fix, _, kept = said[check]["fix"].partition("; ")
        assert "CONFIG REWRITE" in kept  # else the next restart has it as it was
        fix = fix.split()
        assert fix[:3] == ["redis-cli", "CONFIG", "SET"]
        connection.config_set(*fix[3:])  # it fixes what it says
    assert doctor(redis_server.url).code == 0


def test_redis_that_is_nearly_full_fails_with_what_is_held_back(
    redis_server: EmbeddedServer,
) -> None:
    connection = redis.Redis.from_url(redis_server.url)
    used = int(connection.info("memory")["used_memory"])
    connection.config_set("maxmemory", int(used / 0.85))
    said = doctor(redis_server.url)
    assert said["memory"]["status"] == "fail"
    assert 75 < said["memory"]["values"]["used_memory_pct"] < 95
    (limit,) = [one for one in said.lines if one["values"].get("limit") == "redis_memory_pct"]
    assert limit["status"] == "fail"
    for found in (said["memory"], limit):  # more of it for the mesh would be less for the lockers
        assert found["fix"].startswith("free memory")
        assert "--redis-memory-pct" not in found["fix"]
    assert said.code == 2


def test_a_full_stream_fails_with_the_command_that_makes_room(
    redis_url: str, connection: redis.Redis
) -> None:
    connection.hset(keyspace.LIMITS, "stream_entries", 3)
    for _ in range(3):
        connection.xadd(keyspace.RESULTS, {"f": "v"})
    said = doctor(redis_url)
    (full,) = [one for one in said.lines if one["status"] == "fail"]
    assert (said.code, full["check"], full["values"]["limit"]) == (4, "limit", "stream_entries")
    assert "ptzmesh limits --stream-entries" in full["fix"]


def test_a_limit_of_commands_is_no_matter_of_the_stream(
    redis_url: str, connection: redis.Redis
) -> None:
    connection.hset(keyspace.LIMITS, "commands_per_s", 50)
    beat(connection, "a", redis_commands_per_s="60")
    limits = [one for one in doctor(redis_url).lines if one["check"] == "limit"]
    (full,) = [one for one in limits if one["status"] == "fail"]
    assert full["values"]["limit"] == "commands_per_s"
    assert full["fix"].startswith("wait for the open runs (ptzmesh runs); or, where the nodes ")
    assert "ptzmesh limits --commands-per-s N" in full["fix"]


def test_what_others_left_under_our_names_is_no_matter_of_rights(
    redis_url: str, connection: redis.Redis
) -> None:
    connection.hset(keyspace.LIMITS, "stream_bytes", "much")
    connection.set(keyspace.RUNS_OPEN, "of another program")
    said = doctor(redis_url)
    assert (said.code, said.failed()) == (4, {"limit", "runs"})
    assert "under a name of the mesh's" in said["runs"]["message"]
    assert "a database of its own" in said["runs"]["fix"]
    wrong = next(one for one in said.lines if one["check"] == "limit" and one["fix"])
    assert wrong["fix"] == "set it again: ptzmesh limits"


def test_a_dead_collector_fails_and_is_dropped_by_what_it_says(
    redis_url: str, connection: redis.Redis
) -> None:
    old_ms = int((scripts.redis_seconds(connection) - 3 * 86400) * 1000)
    connection.xadd(keyspace.RESULTS, {"f": "v"}, id=f"{old_ms}-0")
    group = "csv:hub:/data/gone.csv"
    connection.xgroup_create(keyspace.RESULTS, group, "0-0")
    said = doctor(redis_url)
    assert (said.code, said.failed()) == (4, {"collector"})
    assert said["collector"]["values"]["oldest_uncollected_s"] == pytest.approx(3 * 86400, abs=60)
    assert "on hub: ptzmesh collect --csv /data/gone.csv" in said["collector"]["fix"]
    assert cli(redis_url, "collect", "--forget", group).returncode == 0
    assert doctor(redis_url).code == 0


def test_uncollected_results_are_told_with_their_age(
    redis_url: str, connection: redis.Redis
) -> None:
    old_ms = int((scripts.redis_seconds(connection) - 600) * 1000)
    connection.xadd(keyspace.RESULTS, {"f": "v"}, id=f"{old_ms}-0")
    found = doctor(redis_url)["collector"]
    assert found["status"] == "warn"
    assert found["values"]["lag"] == 1
    assert found["fix"] == "ptzmesh collect --csv FILE"
    assert found["values"]["oldest_uncollected_s"] == pytest.approx(600, abs=60)


def test_a_silent_node_fails_and_one_that_said_goodbye_does_not(
    redis_url: str, connection: redis.Redis
) -> None:
    beat(connection, "lost", silent_s=100)
    beat(connection, "gone", silent_s=100, stopped="1")
    said = doctor(redis_url)
    assert (said.code, said.failed()) == (4, {"nodes"})
    assert said["nodes"]["values"]["silent"] == ["lost"]
    # It may be cut off: a second worker is refused where one runs.
    assert said["nodes"]["fix"].startswith("there: ptzmesh doctor --name lost; if no worker runs: ")
    assert "ptzmesh worker --name lost" in said["nodes"]["fix"]


def test_nodes_of_other_versions_and_clocks_warn(redis_url: str, connection: redis.Redis) -> None:
    off = {"clock_offset_ms": "2500.0", "clock_offset_uncertainty_ms": "1.0"}
    beat(connection, "a", outbox="4096", **off)
    beat(connection, "b", version="0.0.9")
    said = doctor(redis_url)
    assert {n for n in ("versions", "clocks", "outboxes") if said[n]["status"] == "warn"} == {
        "versions", "clocks", "outboxes",
    }  # fmt: skip
    assert "b 0.0.9" in said["versions"]["message"]
    assert said["clocks"]["message"].startswith("1 of 1 off: a; +2500.0 ± 1.0 ms from Redis")
    # One node alone does not tell whose clock it is.
    assert said["clocks"]["fix"] == f"there, or on the host of Redis: {SET_CLOCK}"
    assert said["clocks"]["values"]["clock_offset_uncertainty_ms"] == {"a": 1.0}


def test_a_clock_that_may_be_right_and_a_queue_that_was_long_are_no_warning(
    redis_url: str, connection: redis.Redis
) -> None:
    beat(connection, "a", clock_offset_ms="-537.0", clock_offset_uncertainty_ms="750.0")
    beat(connection, "b", clock_offset_ms="-537.0")
    assert doctor(redis_url)["clocks"]["status"] == "ok"


def test_clocks_that_all_differ_alike_are_fixed_where_redis_is(
    redis_url: str, connection: redis.Redis
) -> None:
    for name, offset_ms in (("a", "-3600001.0"), ("b", "-3600002.5")):
        clock = {"clock_offset_ms": offset_ms, "clock_offset_uncertainty_ms": "2.0"}
        beat(connection, name, **clock)
    clocks = doctor(redis_url)["clocks"]
    assert clocks["status"] == "warn"
    assert clocks["fix"] == f"on the host of Redis: {SET_CLOCK}"


def test_a_node_of_another_wire_version_fails(redis_url: str, connection: redis.Redis) -> None:
    beat(connection, "a", wire=str(WIRE_VERSION + 1))
    assert doctor(redis_url)["versions"]["status"] == "fail"


def test_a_node_without_its_workers_fails(redis_url: str, connection: redis.Redis) -> None:
    beat(connection, "a")
    worker = "rq:worker:a"
    connection.sadd(keyspace.queue_workers_key(keyspace.node_queue("a")), worker, "rq:worker:dead")
    connection.sadd(keyspace.queue_workers_key(keyspace.serve_queue("a")), "rq:worker:dead")
    connection.hset(worker, "birth", "now")
    said = doctor(redis_url)
    assert said["workers"]["values"]["missing"] == {"a": ["responder"]}
    assert "one that hangs is not: sudo systemctl restart" in said["workers"]["fix"]
    assert said.code == 4


def test_an_overdue_run_fails(redis_url: str, connection: redis.Redis) -> None:
    now = scripts.redis_seconds(connection)
    connection.zadd(keyspace.RUNS_OPEN, {"early": now + 60, "late": now - 60})
    said = doctor(redis_url)
    assert said["runs"]["values"] == {"open": 2, "overdue": ["late"]}
    assert said["runs"]["fix"].startswith("ptzmesh show --follow late")
    assert said.code == 4


@may_ping
def test_a_job_that_was_refused_is_shown(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    assert doctor(redis_url)["refused jobs"]["status"] == "ok"
    with workers(redis_url, connection, tmp_path, ["a"]):
        name = keyspace.node_queue("a")
        rq_jobs.carry_out(connection, rq_jobs.enqueuing(name, "os.system", {"command": "true"}))
        wait_until(lambda: bool(connection.llen(keyspace.REFUSED)), "it is refused")
        said = doctor(redis_url)
    assert said["refused jobs"]["status"] == "warn"
    assert said["refused jobs"]["values"]["refused"] == 1
    assert "allow" in said["refused jobs"]["message"]
    assert "change its password" in said["refused jobs"]["fix"]


def test_refused_jobs_are_sorted_by_what_can_have_brought_them_about(
    redis_url: str, connection: redis.Redis
) -> None:
    def looked(*entries: dict[str, str]) -> Any:
        connection.delete(keyspace.REFUSED)
        if entries:
            connection.rpush(keyspace.REFUSED, *map(json.dumps, entries))
        return refused(connection)

    foreign, version, damaged = (entry_of("a", "job", f"is {c.value}", c, 0) for c in Cause)
    # What nodes of before have noted of a test that came late, when a link or Redis was away.
    late = {"node": "a", "reason": "a test is asked for without holding the lease of a"}
    assert looked(late).message == "none"
    found = looked(damaged, foreign, version, late)
    assert (found.values["refused"], found.values["last"]) == (3, foreign)
    assert "is foreign" in found.message
    assert "password" in found.fix
    assert "install one version" in looked(damaged, version).fix
    assert "password" not in looked(damaged, version).fix
    assert "lost or changed" in looked(damaged).fix
    assert "install one version" in looked({"reason": "of a node that notes no cause"}).fix
    assert looked(damaged).status == "warn"
