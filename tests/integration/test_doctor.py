"""`ptzmesh doctor`: each fault is made for real, and is found with the command that mends it."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

import forked
import pytest
import redis
from waiting import wait_until

from coordinator.checks.health import missing_workers
from coordinator.checks.machine import SET_CLOCK
from coordinator.checks.refusals import refused
from coordinator.checks.rights import needed, refusals, rights, rules
from coordinator.embedded import EmbeddedServer
from coordinator.runs.runs import recent
from integration.nodes import alive, cli, start_worker, workers
from worker.model.version import WIRE_VERSION
from worker.node.refusals import Cause, entry_of
from worker.probes.icmp.engine import icmp_capability
from worker.wire import keyspace, node_record, rq_jobs, scripts
from worker.wire.connection import server

pytestmark = pytest.mark.redis

may_ping = pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")
USERS = Path(__file__).parents[2] / "docker" / "redis" / "users.acl"
#: Says a version, and does what the true one does.
IPERF3 = f"""#!/bin/sh
[ "$1" = --version ] || exec {which("iperf3")} "$@"
echo 'iperf {{}} (cJSON 1.7.15)'
"""


class Said:
    """What one call said: exit code, checks by name, and all of it."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.text = done.returncode, done.stdout + done.stderr
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]

    def __getitem__(self, name: str) -> dict[str, Any]:
        (found,) = [one for one in self.lines if one["check"] == name]
        return found

    def failed(self) -> set[str]:
        return {one["check"] for one in self.lines if one["status"] == "fail"}


def doctor(url: str, *arguments: str, **environ: str) -> Said:
    environment = {**os.environ, "PTZMESH_REDIS_URL": url, **environ}
    done = forked.run([*forked.START, "doctor", "--json", *arguments], env=environment, timeout=300)
    said = Said(done)
    assert said.lines, said.text
    for one in said.lines:
        assert bool(one["mend"]) == (one["status"] in ("warn", "fail")), one
    return said


def beat(connection: redis.Redis, name: str, silent_s: float = 0.0, **fields: str) -> None:
    """Register a node as its heartbeat would."""
    connection.zadd(keyspace.NODES, {name: scripts.redis_seconds(connection) - silent_s})
    record = {"address": "127.0.0.1", "version": "0.1.0", "wire": str(WIRE_VERSION)}
    connection.hset(keyspace.node_key(name), mapping={**record, **fields})


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
        assert said["own heartbeat"]["values"]["seen_s"] < node_record.ALIVE_S
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
        mend, _, kept = said[check]["mend"].partition("; ")
        assert "CONFIG REWRITE" in kept  # else the next restart has it as it was
        mend = mend.split()
        assert mend[:3] == ["redis-cli", "CONFIG", "SET"]
        connection.config_set(*mend[3:])  # it mends what it says
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
        assert found["mend"].startswith("free memory")
        assert "--redis-memory-pct" not in found["mend"]
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
    assert "ptzmesh limits --stream-entries" in full["mend"]


def test_a_limit_of_commands_is_no_matter_of_the_stream(
    redis_url: str, connection: redis.Redis
) -> None:
    connection.hset(keyspace.LIMITS, "commands_per_s", 50)
    beat(connection, "a", redis_commands_per_s="60")
    limits = [one for one in doctor(redis_url).lines if one["check"] == "limit"]
    (full,) = [one for one in limits if one["status"] == "fail"]
    assert full["values"]["limit"] == "commands_per_s"
    assert full["mend"].startswith("wait for the open runs (ptzmesh runs); or, where the nodes ")
    assert "ptzmesh limits --commands-per-s N" in full["mend"]


def test_what_others_left_under_our_names_is_no_matter_of_rights(
    redis_url: str, connection: redis.Redis
) -> None:
    connection.hset(keyspace.LIMITS, "stream_bytes", "much")
    connection.set(keyspace.RUNS_OPEN, "of another program")
    said = doctor(redis_url)
    assert (said.code, said.failed()) == (4, {"limit", "runs"})
    assert "under a name of the mesh's" in said["runs"]["message"]
    assert "a database of its own" in said["runs"]["mend"]
    wrong = next(one for one in said.lines if one["check"] == "limit" and one["mend"])
    assert wrong["mend"] == "set it again: ptzmesh limits"


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
    assert "on hub: ptzmesh collect --csv /data/gone.csv" in said["collector"]["mend"]
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
    assert found["mend"] == "ptzmesh collect --csv FILE"
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
    assert said["nodes"]["mend"].startswith(
        "there: ptzmesh doctor --name lost; if no worker runs: "
    )
    assert "ptzmesh worker --name lost" in said["nodes"]["mend"]


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
    assert said["clocks"]["mend"] == f"there, or on the host of Redis: {SET_CLOCK}"
    assert said["clocks"]["values"]["clock_offset_uncertainty_ms"] == {"a": 1.0}


def test_a_clock_that_may_be_right_and_a_queue_that_was_long_are_no_warning(
    redis_url: str, connection: redis.Redis
) -> None:
    beat(connection, "a", clock_offset_ms="-537.0", clock_offset_uncertainty_ms="750.0")
    beat(connection, "b", clock_offset_ms="-537.0")
    assert doctor(redis_url)["clocks"]["status"] == "ok"


def test_clocks_that_all_differ_alike_are_mended_where_redis_is(
    redis_url: str, connection: redis.Redis
) -> None:
    for name, offset_ms in (("a", "-3600001.0"), ("b", "-3600002.5")):
        clock = {"clock_offset_ms": offset_ms, "clock_offset_uncertainty_ms": "2.0"}
        beat(connection, name, **clock)
    clocks = doctor(redis_url)["clocks"]
    assert clocks["status"] == "warn"
    assert clocks["mend"] == f"on the host of Redis: {SET_CLOCK}"


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
    assert "one that hangs is not: sudo systemctl restart" in said["workers"]["mend"]
    assert said.code == 4


def test_an_overdue_run_fails(redis_url: str, connection: redis.Redis) -> None:
    now = scripts.redis_seconds(connection)
    connection.zadd(keyspace.RUNS_OPEN, {"early": now + 60, "late": now - 60})
    said = doctor(redis_url)
    assert said["runs"]["values"] == {"open": 2, "overdue": ["late"]}
    assert said["runs"]["mend"].startswith("ptzmesh show --follow late")
    assert said.code == 4


@may_ping
def test_a_job_that_was_refused_is_shown(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    assert doctor(redis_url)["refused jobs"]["status"] == "ok"
    with workers(redis_url, connection, tmp_path, ["a"]):
        name = keyspace.node_queue("a")
        rq_jobs.queue(connection, name).enqueue_call("os.system", kwargs={"command": "true"})
        wait_until(lambda: bool(connection.llen(keyspace.REFUSED)), "it is refused")
        said = doctor(redis_url)
    assert said["refused jobs"]["status"] == "warn"
    assert said["refused jobs"]["values"]["refused"] == 1
    assert "allow" in said["refused jobs"]["message"]
    assert "change its password" in said["refused jobs"]["mend"]


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
    assert "password" in found.mend
    assert "install one version" in looked(damaged, version).mend
    assert "password" not in looked(damaged, version).mend
    assert "lost or changed" in looked(damaged).mend
    assert "install one version" in looked({"reason": "of a node that notes no cause"}).mend
    assert looked(damaged).status == "warn"


# What a user of Redis may do.


def as_user(connection: redis.Redis, url: str, *acl: str) -> str:
    connection.execute_command("ACL", "SETUSER", "cam", "reset", "on", ">pw", *acl)
    return url.replace("unix://", "unix://cam:pw@")


def test_each_right_that_a_node_lacks_is_named(redis_url: str, connection: redis.Redis) -> None:
    url = as_user(connection, redis_url, *rules("node"), "-xadd", "-smembers")
    try:
        said = doctor(url, "--name", "cam-1")
        assert said["rights"]["status"] == "fail"
        assert said["rights"]["values"]["missing"]["node"] == ["smembers", "xadd"]
        assert said.code == 2
        assert "+xadd" in said["rights"]["mend"]
        assert "pw@" not in said.text
        assert said["workers"]["status"] == "skipped"
    finally:
        connection.execute_command("ACL", "DELUSER", "cam")


@pytest.mark.parametrize("missing", ["~ptzmesh:*", "~rq:*"])
def test_keys_that_a_node_may_not_touch_are_found(
    redis_url: str, connection: redis.Redis, missing: str
) -> None:
    left = [rule for rule in rules("node") if rule != missing]
    with server.connect(as_user(connection, redis_url, *left)) as user:
        assert rights(user, redis_url, ["node"]).status.value == "fail"
    connection.execute_command("ACL", "DELUSER", "cam")


@pytest.mark.parametrize(
    ("has", "grants"),
    [
        (["~*", "+@all", "-xadd"], "ACL SETUSER cam +xadd;"),  # to `~*` no pattern can be added
        (["~ptzmesh:*", "+@all"], "ACL SETUSER cam '~rq:*';"),
        (["~ptzmesh:*", "~rq:*", *rules("node")[2:-3]], "ACL SETUSER cam +"),
        (["~ptzmesh:*"], "ACL SETUSER cam "),
    ],
)
def test_the_mend_of_rights_is_taken_by_redis_and_mends(
    redis_url: str, connection: redis.Redis, has: list[str], grants: str
) -> None:
    url = as_user(connection, redis_url, *has)
    try:
        for _ in range(3):  # without a transaction the rest cannot be looked at
            with server.connect(url) as user:
                found = rights(user, url, ["node"])
            if found.status.value == "ok":
                break
            command, _, kept = found.mend.partition("; ")
            assert grants.rstrip(";") in command
            assert "ACL SAVE" in kept
            connection.execute_command(*shlex.split(command)[1:])
        assert found.status.value == "ok", found
    finally:
        connection.execute_command("ACL", "DELUSER", "cam")


def test_looking_at_the_rights_leaves_nothing(redis_url: str, connection: redis.Redis) -> None:
    for role in ("node", "trigger", "collector"):
        with server.connect(as_user(connection, redis_url, *rules(role))) as user:
            assert rights(user, redis_url, [role]).status.value == "ok"
            assert ("flushall",) in refusals(user, {**needed(), ("flushall",): [role]})
    assert rights(connection, redis_url, ["node"]).status.value == "ok"
    assert connection.dbsize() == 0
    connection.execute_command("ACL", "DELUSER", "cam")


@may_ping
def test_a_user_with_no_other_rights_can_be_node_trigger_and_collector(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    urls = {}
    for role in ("node", "trigger", "collector"):
        connection.execute_command("ACL", "SETUSER", role, "reset", "on", ">pw", *rules(role))
        urls[role] = redis_url.replace("unix://", f"unix://{role}:pw@")
    probes = [word for probe in ("ping", "redis", "throughput") for word in ("--probe", probe)]
    try:
        with workers(urls["node"], connection, tmp_path, ["a", "b"]):
            done = cli(urls["trigger"], "run", "--count", "2", "--duration", "1", *probes)
            assert done.returncode == 0, done.stderr
            done = cli(urls["collector"], "collect", "--csv", str(tmp_path / "x.csv"))
            assert done.returncode == 0, done.stderr
            assert "NOPERM" not in (tmp_path / "a.log").read_text()
    finally:
        for role in urls:
            connection.execute_command("ACL", "DELUSER", role)


@pytest.mark.parametrize(
    ("user", "role"), [("worker", "node"), ("trigger", "trigger"), ("collector", "collector")]
)
def test_the_users_that_come_with_ptzmesh_have_the_rights_of_their_role(
    redis_url: str, connection: redis.Redis, user: str, role: str
) -> None:
    lines = USERS.read_text().splitlines()
    (rule,) = [line.split()[2:] for line in lines if line.startswith(f"user {user} ")]
    granted = [">pw" if word.startswith("#") else word for word in rule]
    with server.connect(as_user(connection, redis_url, *granted)) as opened:
        found = rights(opened, redis_url, [role])
    connection.execute_command("ACL", "DELUSER", "cam")
    assert found.status.value == "ok", found.message


# This machine.


def test_a_state_folder_that_cannot_be_written_fails(redis_url: str, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    said = doctor(redis_url, "--name", "a", "--state-dir", str(in_the_way / "state"))
    assert (said.code, said["state folder"]["status"]) == (2, "fail")
    read_only = doctor(redis_url, "--name", "a", "--state-dir", "/proc/ptzmesh")
    assert read_only["state folder"]["status"] == "fail"
    for found in (said, read_only):
        # Nothing that a right or a disk would change.
        assert found["state folder"]["mend"].startswith("say another --state-dir than ")


@pytest.mark.parametrize(
    ("mount", "advice"),
    [("-t tmpfs -o ro none", "its file system is read-only"), ("-t tmpfs -o size=4k none", "make")],
)
def test_a_state_folder_on_a_disk_that_is_full_or_read_only_says_which(
    redis_url: str, tmp_path: Path, mount: str, advice: str
) -> None:
    if os.geteuid():
        pytest.skip("mounting needs root")
    folder, script = tmp_path / "disk", Path(__file__).parent / "state_folder.py"
    folder.mkdir()
    fill = f"head -c 4096 /dev/zero > {folder}/full 2>/dev/null"
    inside = f"mount {mount} {folder} && {{ {fill} || true; }} && exec {sys.executable} {script}"
    argv = ["unshare", "--mount", "sh", "-c", f"{inside} {folder}/state"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    status, mend = json.loads(done.stdout)
    assert status == "fail"
    assert mend.startswith(advice)
    assert "; or say another --state-dir" in mend


def test_results_that_wait_on_this_disk_are_told(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "a.outbox").write_bytes(b"x" * 5000)
    said = doctor(redis_url, "--name", "a", "--state-dir", str(tmp_path))
    assert said["outbox"]["values"]["outbox_bytes"] == 5000
    assert said["outbox"]["status"] == "warn"


@pytest.mark.parametrize(
    ("version", "status"),
    [(None, "fail"), ("3.6", "fail"), ("3.7", "ok"), ("3.15", "ok"), ("3.18", "warn"),
     ("3.21", "ok")],
)  # fmt: skip
def test_the_version_of_iperf3_on_path_is_judged(
    redis_url: str, tmp_path: Path, version: str | None, status: str
) -> None:
    if version is not None:
        program = tmp_path / "iperf3"
        program.write_text(IPERF3.format(version))
        program.chmod(0o755)
    said = doctor(redis_url, "--name", "a", "--state-dir", str(tmp_path), PATH=str(tmp_path))
    assert said["iperf3"]["status"] == status
    assert said["iperf3"]["values"]["on_path"] == version


def test_a_worker_that_does_not_know_the_iperf3_on_this_path_has_another_path(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    beat(connection, "a", iperf3="", icmp="none")
    program = tmp_path / "iperf3"
    program.write_text(IPERF3.format("3.12"))
    program.chmod(0o755)
    said = doctor(redis_url, "--name", "a", "--state-dir", str(tmp_path), PATH=str(tmp_path))
    assert said["iperf3"]["status"] == "fail"
    assert "the worker looks on its own PATH" in said["iperf3"]["mend"]
    assert "restart" not in said["iperf3"]["mend"]
    assert said["icmp"]["status"] == "fail"
    assert "net.ipv4.ping_group_range" in said["icmp"]["mend"]


def test_a_node_that_was_started_here_and_is_silent_fails(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    (tmp_path / "a.owner").write_text("token")
    folder = ("--state-dir", str(tmp_path))
    config = tmp_path / "ptzmesh.toml"
    config.write_text(f'[worker]\nname = "a"\nstate_dir = "{tmp_path}"\n')
    environment = {**os.environ, "PTZMESH_REDIS_URL": redis_url}
    argv = [sys.executable, "-m", "coordinator.cli", "--config", str(config), "doctor", "--json"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert Said(done)["own heartbeat"]["message"] == "a was never heard"  # named as the worker is
    beat(connection, "a", silent_s=99)
    assert doctor(redis_url, "--name", "a", *folder)["own heartbeat"]["status"] == "fail"
    beat(connection, "a", stopped="1")
    assert doctor(redis_url, "--name", "a", *folder)["own heartbeat"]["status"] == "warn"


# The health check.


def quick(url: str, name: str) -> subprocess.CompletedProcess[str]:
    return cli(url, "doctor", "--quick", "--name", name)


def cpu_s(act: Callable[[], object]) -> float:
    """Give the CPU seconds of the children that an act starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    act()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@may_ping
def test_a_health_check_passes_while_the_node_lives_and_fails_when_a_worker_is_stuck(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    last = quick(redis_url, "a")

    def says(code: int, words: str) -> bool:
        # A Redis that is held up for half a second is no healthy one, either.
        nonlocal last
        last = quick(redis_url, "a")
        is_line = len(last.stdout.splitlines()) == 1
        return is_line and last.returncode == code and words in last.stdout

    def is_without_its_responder() -> bool:
        # (RQ's worker notices now and then that it is not registered.)
        connection.delete(*connection.smembers("rq:workers:ptzmesh:serve:a"), "-")
        return says(4, "responder not registered")

    process = start_worker(redis_url, "a", "127.0.0.1", tmp_path)
    try:
        wait_until(lambda: says(0, "ok: a heard "), "it is healthy")
        assert last.stdout.startswith("ok: ")
        wait_until(is_without_its_responder, "it is not healthy")
    finally:
        process.terminate()
        process.wait(60)
    assert alive(connection) == []
    wait_until(lambda: says(4, "stopped"), "it is not healthy")


@pytest.mark.long
def test_a_health_check_costs_less_than_twice_what_its_libraries_do(redis_url: str) -> None:
    def least_cpu_s(act: Callable[[], object]) -> float:
        return min(cpu_s(act) for _ in range(3))

    argv = [sys.executable, "-c", "import click, redis, rq"]
    least = least_cpu_s(lambda: subprocess.run(argv, check=True))
    argv = [*forked.START, "doctor", "--quick", "--name", "nobody", "--redis", redis_url]
    assert least_cpu_s(lambda: subprocess.run(argv, capture_output=True, check=False)) < 2 * least


def test_a_health_check_ends_in_time_when_redis_does_not_answer(
    redis_server: EmbeddedServer,
) -> None:
    begun = time.monotonic()
    os.kill(redis_server.pid, signal.SIGSTOP)  # it takes connections, and says nothing
    try:
        done = quick(redis_server.url, "a")
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    assert done.returncode == 3
    assert time.monotonic() - begun < 7.5  # every other command waits for 8 s, and tries again
    assert len(done.stdout.splitlines()) == 1


def test_a_node_that_was_never_heard_is_not_healthy(redis_url: str) -> None:
    done = quick(redis_url, "nobody")
    assert done.returncode == 4
    assert done.stdout == "fail: nobody was never heard\n"


def test_between_needs_two_registered_nodes(redis_url: str, connection: redis.Redis) -> None:
    beat(connection, "a")
    for nodes in (("a", "a"), ("a", "strange")):
        done = cli(redis_url, "doctor", "--between", *nodes)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_between_a_node_that_is_gone_says_what_brings_it_back(
    redis_url: str, connection: redis.Redis
) -> None:
    beat(connection, "a", silent_s=99)
    beat(connection, "b", stopped="1", silent_s=99)
    said = doctor(redis_url, "--between", "a", "b")
    silent, stopped = (one["mend"] for one in said.lines)
    # It may be cut off: a second worker is refused where one runs.
    assert silent == "there: ptzmesh doctor --name a; if no worker runs: ptzmesh worker --name a"
    assert stopped == "there: ptzmesh worker --name b"
    alone = doctor(redis_url, "--quick", "--name", "a")
    assert alone["own heartbeat"]["mend"] == (
        "see its log; if it does not run: ptzmesh worker --name a"
    )


@pytest.mark.parametrize(
    ("limit", "most", "word"),
    [("run_bytes", 10, "the open runs take"), ("commands_per_s", 1, "commands a second to Redis")],
)
def test_between_keeps_to_the_limits_of_every_run(
    redis_url: str, connection: redis.Redis, limit: str, most: int, word: str
) -> None:
    for node in ("a", "b"):
        beat(connection, node, redis_commands_per_s="100")
    assert cli(redis_url, "run", "--detach").returncode == 0
    before = recent(connection, 9)
    connection.hset(keyspace.LIMITS, limit, most)
    for command in (["run", "--new", "--detach"], ["doctor", "--between", "a", "b"]):
        done = cli(redis_url, *command)
        assert done.returncode == 3, done.stderr
        assert word in done.stderr
    assert recent(connection, 9) == before


# What a person sees.


@pytest.mark.parametrize("columns", ["80", "120"])
def test_every_line_but_a_command_fits_the_terminal(redis_url: str, columns: str) -> None:
    leader, follower = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"PTZMESH_REDIS_URL": redis_url, "COLUMNS": columns, "TERM": "xterm"}
    subprocess.run(
        [sys.executable, "-m", "coordinator.cli", "doctor"],
        env=environment, stdout=follower, stderr=follower, check=True,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while not shown.rstrip().endswith(b"skipped"):
        shown += os.read(leader, 65536)
    os.close(leader)
    assert b"\x1b[32m" in shown  # ok is green, and says so in letters, too
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()
    assert [line for line in plain if len(line) > int(columns) and "->" not in line] == []
    assert any(line.startswith("  ok      eviction") for line in plain)


@pytest.mark.parametrize(("columns", "spared"), [("80", {"version"}), ("140", set())])
def test_a_narrow_terminal_shows_names_whole_and_leaves_columns_out(
    redis_url: str, connection: redis.Redis, columns: str, spared: set[str]
) -> None:
    beat(connection, "camera-on-the-northern-roof", redis_commands_per_s="10.25",
         clock_offset_ms="-3.1", clock_offset_uncertainty_ms="0.2",
         labels='{"site": "roof"}')  # fmt: skip
    leader, follower = pty.openpty()
    environment = {**os.environ, "PTZMESH_REDIS_URL": redis_url, "COLUMNS": columns}
    argv = [sys.executable, "-m", "coordinator.cli", "nodes"]
    subprocess.run(argv, env=environment, stdout=follower, stderr=follower, check=True)
    os.close(follower)
    shown = b""
    while b"roof" not in shown.partition(b"camera")[2]:
        shown += os.read(leader, 65536)
    os.close(leader)
    head, _, row = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()[:3]
    assert "camera-on-the-northern-roof" in row
    assert {"version", "labels"} - set(head.split()) >= spared
    assert "alive" in row
