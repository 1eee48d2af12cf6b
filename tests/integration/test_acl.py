"""Each user of docker/redis/users.acl may do its own work, and nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from programs import start_worker
from waiting import wait_until

from coordinator.checks.rights import COLLECTOR, NODE, TRIGGER, rights
from coordinator.embedded import EmbeddedServer
from coordinator.runs.advance import advance
from coordinator.runs.starting import start
from integration.guarded import PAGE, USERS, Guarded, free_port, guarded_server
from integration.nodes import cli, workers
from integration.rows import beat, plan
from worker.model.errors import RedisUnavailable
from worker.probes.icmp.engine import icmp_capability
from worker.probes.iperf3.tool import find_iperf3
from worker.wire import keyspace, run_record

pytestmark = pytest.mark.redis

NAMES = ("a", "b", "c")
OTHERS = ("default", "monitor", "worker", "trigger", "collector")
LOCKER = "file_lockers:1"

#: Nobody but the administrator may do these.
OF_THE_SERVER = (
    "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE", "CONFIG GET requirepass",
    "CONFIG SET maxmemory 1", "DEBUG SLEEP 0", "SHUTDOWN NOSAVE", "ACL LIST", "ACL SETUSER x on",
    "PUBLISH rq:pubsub:x stop", "SUBSCRIBE rq:pubsub:x", "PSUBSCRIBE *", "MONITOR", "CLIENT LIST",
    "CLIENT KILL TYPE normal", "CLIENT PAUSE 10", "SCRIPT FLUSH", "SCRIPT KILL", "SAVE", "BGSAVE",
    "REPLICAOF 127.0.0.1 1", "MIGRATE 127.0.0.1 1 k 0 1", "SWAPDB 0 1", "MODULE LIST",
    "SLOWLOG GET", "EVAL return 0",
)  # fmt: skip
READ_LOCKER = (f"GET {LOCKER}", f"MGET {LOCKER}", f"PTTL {LOCKER}", f"EXISTS {LOCKER}")
WRITE_LOCKER = (
    f"SET {LOCKER} me", f"SET {LOCKER} me NX EX 9", f"DEL {LOCKER}", f"EXPIRE {LOCKER} 1",
    f"PERSIST {LOCKER}", f"RENAME {LOCKER} x", f"RENAME ptzmesh:x {LOCKER}",
    f"COPY ptzmesh:x {LOCKER}", f"HSET {LOCKER} a b", f"RPUSH {LOCKER} a", f"UNLINK {LOCKER}",
    f"LMOVE ptzmesh:x {LOCKER} LEFT LEFT", f"SORT ptzmesh:x STORE {LOCKER}",
    f"GETRANGE {LOCKER} 0 9", f"RESTORE {LOCKER} 0 x", f"WATCH {LOCKER}",
)  # fmt: skip
ENQUEUE = (
    "HSET rq:job:x data y", "RPUSH rq:queue:ptzmesh:node:a x", "LPUSH rq:queue:ptzmesh:node:a x",
    "SADD rq:queues x", "ZADD rq:wip:x 1 y",
)  # fmt: skip
PUBLISH = ("XADD ptzmesh:results * a b", "SETBIT ptzmesh:run:x:done:ping 0 1")
CHANGE_MESH = (
    "HSET ptzmesh:limits stream_entries 1", "HSET ptzmesh:node:a address 10.0.0.1",
    "ZADD ptzmesh:nodes 1 x", "HSET ptzmesh:run:x status done", "SET ptzmesh:lease:a x",
    "DEL ptzmesh:runs", "XDEL ptzmesh:results 0-1", "SET ptzmesh:monitor:holder:x y",
)  # fmt: skip
TAKE_JOBS = (
    "LPOP rq:queue:ptzmesh:node:a", "BLPOP rq:queue:ptzmesh:node:a 1",
    "BLMOVE rq:queue:ptzmesh:node:a ptzmesh:x LEFT LEFT 1", "LREM rq:queue:ptzmesh:node:a 0 x",
    "LTRIM rq:queue:ptzmesh:node:a 1 0", "SREM rq:workers x",
)  # fmt: skip
FORBIDDEN = {
    "worker": (*READ_LOCKER, *WRITE_LOCKER, "XGROUP DESTROY ptzmesh:results g", "GET foreign",
               "XRANGE ptzmesh:results - +", "XREAD STREAMS ptzmesh:results 0"),
    "trigger": (*READ_LOCKER, *WRITE_LOCKER, *TAKE_JOBS, "GET foreign"),
    "collector": (
        *READ_LOCKER, *WRITE_LOCKER, *TAKE_JOBS, *ENQUEUE, *PUBLISH, *CHANGE_MESH,
        "SCRIPT LOAD return", "GET ptzmesh:lease:a", "HGETALL rq:job:x",
        "XTRIM ptzmesh:results MAXLEN 0",
    ),
    "default": (*TAKE_JOBS, *ENQUEUE, "HGETALL rq:job:x", "HSET ptzmesh:node:a address 10.0.0.1",
                "GET ptzmesh:run:x", "XRANGE ptzmesh:results - +", "SET ptzmesh:lease:a x"),
}  # fmt: skip
FORBIDDEN["monitor"] = FORBIDDEN["default"]


@pytest.fixture(scope="module")
def server(server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded_server(server_binary, tmp_path_factory.mktemp("acl")) as guarded:
        yield guarded


@pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")
def test_a_whole_mesh_lives_within_the_rights_of_its_users(server: Guarded) -> None:
    ours = {user: server.url(user) for user in OTHERS}
    folder = server.folder

    def done(user: str, *arguments: str, code: int = 0) -> str:
        said = cli(ours[user], *arguments)
        assert said.returncode == code, f"{user}: {arguments}: {said.stderr}"
        return said.stdout

    with (
        server.connect("admin") as admin,
        workers(ours["worker"], admin, folder, NAMES, ["--link", "lan=1"]) as started,
    ):
        admin.acl_log_reset()
        probes = ["ping", "tcp", "redis", *([] if find_iperf3().fault else ["throughput", "udp"])]
        options = [] if find_iperf3().fault else ["--duration", "1"]
        kinds = [part for probe in probes for part in ("--probe", probe)]
        done("trigger", "run", *kinds, *options, "--csv", str(folder / "run.csv"))
        for command in ("nodes", "runs", "show", "results", "limits"):
            done("trigger", command)
        cancelled = done("trigger", "run", "--detach", "--new", "--count", "1000").strip()
        done("trigger", "cancel", cancelled)
        test = ["test", "c", "--nodes", "a,b", "-d", "2", "-i", "1", "--no-plot"]
        done("trigger", *test, "--out", str(folder))
        csv = str(folder / "all.csv")
        done("collector", "collect", "--csv", csv)
        first = json.loads(done("trigger", "runs", "--json").splitlines()[-1])["run"]
        done("collector", "verify", first, "--csv", csv)
        for command in ("runs", "results"):
            done("collector", command)
        _use_lockers(server)
        assert "file_lockers: 1 held" in done("monitor", "lockers")

        # A node that dies and comes back: what is lost is enqueued or published by others.
        started["c"].kill()
        last = done("trigger", "run", "--new", "--detach").strip()
        again = start_worker(ours["worker"], "c", "127.0.0.3", folder)
        try:
            wait_until(
                lambda: admin.hget(f"ptzmesh:run:{last}", "status") == b"done", "the run ends"
            )
        finally:
            again.terminate()
            again.wait(60)
    assert server.refused() == []


def _use_lockers(server: Guarded) -> None:
    """Take lockers as PTZJEPA does, which knows a password and no user, and as our drop-in does."""
    program = f"""
import sys
from ptzjepa import UnchangedLockers
from worker.monitor import MultiLockerSystem
from worker.monitor.process import recorder
password = sys.stdin.read()
ours, theirs = (
    kind("127.0.0.1", {server.port}, password, "file_lockers", 4, 600, 3)
    for kind in (MultiLockerSystem, UnchangedLockers)
)
assert theirs.acquire_locker(1) == 1
assert ours.acquire_locker(1) is None
assert theirs.release_locker(1)
assert ours.acquire_locker(1) == 1
assert ours.release_locker(1)
assert theirs.acquire_locker(2) == 2
assert recorder().publish_now(10)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=server.password("default"), text=True, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_with_redis_7_a_program_with_lockers_cannot_delete_results(
    server: Guarded, server_binary: Path, tmp_path: Path
) -> None:
    with server.connect("admin") as admin:
        version = str(admin.info("server")["redis_version"])
    if int(version.partition(".")[0]) < 7:
        pytest.skip(f"{version} has no rights by key")
    line = re.search(r"```text\nuser (default .*)\n```", PAGE.read_text())
    assert line is not None
    with guarded_server(server_binary, tmp_path / "seven") as stricter:
        rule = line[1].replace("#DEFAULT_PASSWORD_SHA256", f">{stricter.password('default')}")
        with stricter.connect("admin") as admin:
            admin.execute_command("ACL", "SETUSER", *rule.split())
            _use_lockers(stricter)
            # Beside these, the way to Redis is measured, which may take longer than the lockers.
            probes = [fields[b"probe"] for _, fields in admin.xrange("ptzmesh:results")]
            assert probes.count(b"locker") == 3
            assert stricter.refused() == []
            changes = (
                "DEL ptzmesh:results", "XTRIM ptzmesh:results MAXLEN 0", "SET ptzmesh:results x",
                "SET ptzmesh:limits x", "HSET ptzmesh:limits stream_entries 1",
            )  # fmt: skip
            assert _not_refused(stricter, "default", changes) == []


@pytest.mark.parametrize("user", OTHERS)
def test_a_user_may_do_nothing_to_the_server(server: Guarded, user: str) -> None:
    assert _not_refused(server, user, OF_THE_SERVER) == []


@pytest.mark.parametrize("user", OTHERS)
def test_a_user_may_not_touch_what_is_not_its_own(server: Guarded, user: str) -> None:
    with server.connect("admin") as admin:
        admin.set(LOCKER, "holder", ex=600)
        assert _not_refused(server, user, FORBIDDEN[user]) == []
        assert admin.get(LOCKER) == b"holder"


def _not_refused(server: Guarded, user: str, commands: tuple[str, ...]) -> list[str]:
    found = []
    for command in commands:
        with server.connect(user) as connection:
            try:
                connection.execute_command(*command.split())
            except redis.exceptions.NoPermissionError:
                continue
            except redis.RedisError as exc:
                # Newer servers know no DEBUG at all unless they are told to.
                if "DEBUG command not allowed" not in str(exc):
                    found.append(f"{command}: {exc}")
            else:
                found.append(command)
    return found


@pytest.mark.parametrize("user", ["worker", "trigger"])
def test_who_carries_a_run_on_may_note_that_nobody_serves_a_queue(
    server: Guarded, user: str
) -> None:
    with server.connect("admin") as admin, server.connect(user) as connection:
        beat(admin, "n0", "n1", "n2")
        run, _ = start(admin, plan(), join=False)
        admin.delete("rq:worker:n0")
        advance(connection, run)
        unserved = run_record.row_fields(0, 0).unserved
        assert admin.hexists(keyspace.run_key(run), unserved)
        admin.flushdb()


@pytest.mark.parametrize("user", ["worker", "trigger"])
@pytest.mark.parametrize("declared", [True, False])
def test_a_foreign_script_cannot_touch_a_locker(server: Guarded, user: str, declared: bool) -> None:
    key = "KEYS[1]" if declared else f"'{LOCKER}'"
    with server.connect("admin") as admin, server.connect(user) as connection:
        admin.set(LOCKER, "holder", ex=600)
        for call in (f"'GET', {key}", f"'SET', {key}, 'me'", f"'DEL', {key}"):
            digest = connection.script_load(f"return redis.call({call})")
            with pytest.raises(redis.ResponseError, match=r"NOPERM|permission|can't"):
                connection.evalsha(digest, int(declared), *([LOCKER] if declared else []))
        for call in ("'FLUSHALL'", "'KEYS', '*'", "'CONFIG', 'GET', '*'", "'PUBLISH', 'a', 'b'"):
            digest = connection.script_load(f"return redis.call({call})")
            with pytest.raises(redis.ResponseError):
                connection.evalsha(digest, 0)
        assert admin.get(LOCKER) == b"holder"


def test_a_client_without_a_password_may_do_nothing(server: Guarded) -> None:
    with redis.Redis(port=server.port) as nobody, pytest.raises(redis.AuthenticationError):
        nobody.get(LOCKER)


def test_a_user_without_the_right_is_told_in_one_line(server: Guarded) -> None:
    said = cli(server.url("collector"), "limits", "--stream-bytes", "1000000000")
    assert said.returncode == 3
    assert said.stderr.count("\n") == 1
    assert "hset" in said.stderr
    assert server.password("collector") not in said.stderr


def test_passwords_that_were_not_set_keep_the_server_from_starting(
    server_binary: Path, tmp_path: Path
) -> None:
    port = free_port()
    options = (f"port {port}", f"aclfile {USERS}")
    fresh = EmbeddedServer(server_binary, tmp_path, f"redis://127.0.0.1:{port}/0", options)
    with pytest.raises(RedisUnavailable):
        fresh.start()


def test_the_users_of_the_page_are_those_of_the_file() -> None:
    users = set(re.findall(r"^user (\S+)", USERS.read_text(), re.MULTILINE))
    told = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE))
    assert users == told == {"admin", *OTHERS}


@pytest.mark.parametrize(
    ("user", "role"), [("worker", NODE), ("trigger", TRIGGER), ("collector", COLLECTOR)]
)
def test_the_doctor_misses_no_right_of_a_user_for_its_role(
    server: Guarded, user: str, role: str
) -> None:
    with server.connect(user) as connection:
        assert role not in rights(connection, "redis://", [role]).values["missing"]
