"""A password stays where it was put: looked for everywhere while a mesh runs, fails, restarts."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from forked import START
from programs import running_worker
from waiting import wait_until

from coordinator.embedded import EmbeddedServer
from integration.guarded import free_port
from integration.nodes import alive
from worker.probes.icmp.engine import icmp_capability
from worker.probes.iperf3.tool import find_iperf3
from worker.wire.connection.redis_url import VARIABLES

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping"),
]

#: With signs that are written otherwise in a URL.
PASSWORD = f"hunter2@{secrets.token_hex(8)}/#"
SPELLINGS = [text.encode() for text in (PASSWORD, quote(PASSWORD, safe=""), repr(PASSWORD)[1:-1])]


def told_in(data: bytes) -> bool:
    return any(spelling in data for spelling in SPELLINGS)


@dataclass
class Watch:
    """
    Reads the command lines of all processes, and the environment of iperf3, while it runs.

    Other tests have iperf3, too: looked at is what runs in the folder.
    """

    folder: Path
    seen: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)
    iperf3_environ: set[bytes] = field(default_factory=set)

    @contextmanager
    def running(self) -> Iterator[None]:
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(0.01):
                self._look()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _look(self) -> None:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_bytes()
                name = (process / "comm").read_text().strip()
                if name == "iperf3" and (process / "cwd").readlink() == self.folder:
                    self.iperf3_environ.add((process / "environ").read_bytes())
            except OSError:
                continue  # it has ended
            self.seen.add(name)
            if b"coordinator.cli" in line:
                words = line.split(b"coordinator.cli\0")[-1].split(b"\0")
                self.seen |= {word.decode(errors="replace") for word in words[:2]}
            if told_in(line):
                self.found.add(line.decode(errors="replace"))


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in VARIABLES} | more


def everything_in(connection: redis.Redis) -> Iterator[tuple[bytes, bytes]]:
    """Give each key with all that it holds; ours is the server, so its keyspace may be scanned."""
    readers = {
        b"string": connection.get,
        b"hash": connection.hgetall,
        b"list": lambda key: connection.lrange(key, 0, -1),
        b"set": connection.smembers,
        b"zset": lambda key: connection.zrange(key, 0, -1),
        b"stream": lambda key: connection.xrange(key),
    }
    for key in connection.scan_iter():
        kind = connection.type(key)
        if kind in readers:  # else it has expired
            yield key, repr(readers[kind](key)).encode()


@pytest.fixture
def server(server_binary: Path, tmp_path: Path) -> Iterator[EmbeddedServer]:
    home = tmp_path / "redis"
    home.mkdir()
    port = free_port()
    url = f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/0"
    options = ("bind 127.0.0.1", f"port {port}", f'requirepass "{PASSWORD}"')
    started = EmbeddedServer(server_binary, home, url, options)
    started.start()
    yield started
    started.stop()


def test_a_password_is_nowhere_while_a_mesh_runs_fails_and_restarts(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    folder, file = tmp_path / "work", tmp_path / "redis.pass"
    folder.mkdir()
    file.write_text(PASSWORD)
    file.chmod(0o600)
    bare = f"redis://127.0.0.1:{server.url.rpartition(':')[2]}"
    by_file = environment(PTZMESH_REDIS_URL=bare, PTZMESH_REDIS_PASSWORD_FILE=str(file))
    by_variable = environment(PTZMESH_REDIS_URL=bare, PTZMESH_REDIS_PASSWORD=PASSWORD)
    by_url = environment(PTZMESH_REDIS_URL=server.url)
    said: list[bytes] = []

    def run(*arguments: str, env: dict[str, str] = by_file) -> int:
        command = [sys.executable, "-m", "coordinator.cli", "--debug", *arguments]
        done = subprocess.run(
            command, env=env, cwd=folder, capture_output=True, timeout=300, check=False
        )
        said.extend((done.stdout, done.stderr))
        return done.returncode

    watch = Watch(folder)
    with redis.Redis.from_url(server.url) as admin, watch.running(), ExitStack() as stack:
        nodes = [
            stack.enter_context(
                running_worker(
                    *(bare, name, f"127.0.0.{number}", folder, ["-v"]),
                    program=[*START, "--debug"],
                    env=env,
                    alone=True,
                )
            )
            for number, (name, env) in enumerate(
                {"a": by_file, "b": by_variable, "c": by_url}.items(), start=2
            )
        ]
        wait_until(lambda: len(alive(admin)) == 3, "all nodes are there")
        probes = ["--probe", "ping", "--probe", "redis"]
        probes += [] if find_iperf3().fault else ["--probe", "throughput", "--duration", "1"]
        assert run("run", *probes, "--csv", "metrics.csv") == 0
        for env in (by_variable, by_url):
            assert run("nodes", env=env) == 0
        # Its process dies in the middle of a sweep; then the password is another for a while.
        assert run("run", "--new", "--detach", "--count", "50") == 0
        for child in children(nodes[0].pid):
            os.kill(child, signal.SIGKILL)
        admin.config_set("requirepass", "another")
        admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert run("nodes") == 3
        assert run("run") == 3
        wait_until(lambda: b"WRONGPASS" in logs(folder) or b"invalid" in logs(folder), "logs")
        admin.config_set("requirepass", PASSWORD)
        # Redis dies and comes back empty.
        server.kill()
        assert run("nodes") == 3
        server.start()
        wait_until(lambda: len(alive(admin)) == 3, "all nodes are back")
        assert run("run", "--new") == 0
        assert run("nodes", env=environment(PTZMESH_REDIS_URL=f"{server.url}x")) == 2
        assert run("nodes", "--redis", bare.replace("redis:", "http:")) == 2
        values = dict(everything_in(admin))

    assert any(key.startswith(b"rq:") for key in values)
    assert b"ptzmesh:results" in values
    assert [key for key, value in values.items() if told_in(key + value)] == []
    assert watch.found == set()
    assert {"worker", "run", "nodes"} <= watch.seen
    assert [text for text in said if told_in(text)] == []
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".csv" for path in files)
    assert [path for path in files if told_in(path.read_bytes())] == []
    if not find_iperf3().fault:
        assert watch.iperf3_environ
        names = {part.split(b"=")[0] for one in watch.iperf3_environ for part in one.split(b"\0")}
        assert names <= {b"LC_ALL", b"PATH", b"TMPDIR", b""}


def children(pid: int) -> Sequence[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in found.split()]


def logs(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("*.log"))


@pytest.mark.long
def test_a_demo_uses_its_own_redis_whatever_the_environment_says(tmp_path: Path) -> None:
    env = environment(
        PTZMESH_REDIS_URL="rediss://elsewhere:1", PTZMESH_REDIS_PASSWORD=PASSWORD,
        PTZMESH_REDIS_CA="/none.pem",
    )  # fmt: skip
    command = [sys.executable, "-m", "coordinator.cli", "demo", "--count", "2"]
    watch = Watch(tmp_path)
    with watch.running():
        done = subprocess.run(
            command, env=env, cwd=tmp_path, capture_output=True, timeout=300, check=False
        )
    assert done.returncode == 0, done.stderr
    assert watch.found == set()
    assert {"demo", "worker"} <= watch.seen


def test_a_traceback_of_a_wrong_url_has_nothing_of_it(tmp_path: Path) -> None:
    for url in (f"redis://:{PASSWORD}@h", f"redis://:{quote(PASSWORD)}@h:port", PASSWORD):
        done = subprocess.run(
            [sys.executable, "-m", "coordinator.cli", "--debug", "nodes"],
            env=environment(PTZMESH_REDIS_URL=url),
            cwd=tmp_path, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert b"Traceback" in done.stderr
        assert b"hunter2" not in done.stderr
