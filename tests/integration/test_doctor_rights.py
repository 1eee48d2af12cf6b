"""`ptzmesh doctor` and what a user of Redis may do: each right that is missing is named."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import redis

from coordinator.checks.rights import needed, rights, spelled
from integration.doctor_calls import doctor, may_ping
from integration.nodes import cli, workers
from worker.wire.connection import server

pytestmark = pytest.mark.redis

USERS = Path(__file__).parents[2] / "docker" / "redis" / "users.acl"


def rules(role: str) -> list[str]:
    """Return the ACL rules that let a user be a `node`, a `trigger` or a `collector`."""
    names = {spelled(command) for command, roles in needed().items() if role in roles}
    return ["~ptzmesh:*", "~rq:*", *(f"+{name}" for name in sorted(names))]


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
        assert "+xadd" in said["rights"]["fix"]
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
def test_the_fix_of_rights_is_taken_by_redis_and_works(
    redis_url: str, connection: redis.Redis, has: list[str], grants: str
) -> None:
    url = as_user(connection, redis_url, *has)
    try:
        for _ in range(3):  # without a transaction the rest cannot be looked at
            with server.connect(url) as user:
                found = rights(user, url, ["node"])
            if found.status.value == "ok":
                break
            command, _, kept = found.fix.partition("; ")
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
