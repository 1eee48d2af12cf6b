"""The embedded server: private, evicts nothing, restartable, and never an orphan."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from waiting import wait_until

from coordinator import embedded
from coordinator.embedded import EmbeddedServer, embedded_server
from coordinator.extras import how_to_install
from worker.model.errors import ConfigError, RedisUnavailable

pytestmark = pytest.mark.redis


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


VERSIONS = {"redis62": ("redis", "6.2."), "redis7": ("redis", "7."), "valkey": ("valkey", "9.")}


def test_server_that_was_chosen_is_the_one_that_runs(
    request: pytest.FixtureRequest, connection: redis.Redis
) -> None:
    choice = request.config.getoption("--redis-server")
    if choice is None:
        pytest.skip("none was chosen")
    name, version = VERSIONS[choice]
    info = connection.info("server")
    assert info.get("server_name", "redis") == name
    assert str(info.get(f"{name}_version")).startswith(version)


def test_socket_is_private_and_nothing_is_evicted(server_binary: Path, tmp_path: Path) -> None:
    with embedded_server(tmp_path, binary=server_binary) as server:
        with redis.Redis.from_url(server.url) as connection:
            assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert connection.config_get("save") == {"save": ""}
        assert stat.S_IMODE((tmp_path / "redis").stat().st_mode) == 0o700
        assert not (tmp_path / "redis").stat().st_mode & 0o077
        assert server.log_path.read_text()
        pid = server.pid
    assert not alive(pid)


def test_port_is_on_loopback_and_needs_the_password(server_binary: Path, tmp_path: Path) -> None:
    with embedded_server(tmp_path, binary=server_binary, unix=False) as server:
        with redis.Redis.from_url(server.url) as connection:
            assert connection.ping()
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        patience = Retry(NoBackoff(), 0)
        with (
            redis.Redis(port=port, retry=patience) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()


def test_path_too_long_for_a_socket_still_works(server_binary: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 20) / ("er" * 20)
    with embedded_server(deep, binary=server_binary) as server:
        socket_path = Path(server.url.removeprefix("unix://"))
        assert deep not in socket_path.parents
        assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
        with redis.Redis.from_url(server.url) as connection:
            assert connection.ping()
    assert not socket_path.parent.exists()


def test_folder_with_a_space_and_a_quote(server_binary: Path, tmp_path: Path) -> None:
    with embedded_server(tmp_path / 'a "b" c', binary=server_binary) as server:
        assert server.pid


def test_data_outlives_kill_and_stop(redis_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(redis_server.url) as connection:
        connection.set("a", "1")
        redis_server.kill()
        with pytest.raises(RedisUnavailable, match="stopped"):
            _ = redis_server.pid
        redis_server.start()
        assert connection.get("a") == b"1"
        redis_server.stop()
        redis_server.start()
        assert connection.get("a") == b"1"


def test_wrong_option_is_told_with_the_servers_own_words(
    server_binary: Path, tmp_path: Path
) -> None:
    with (
        pytest.raises(RedisUnavailable, match=r"did not start: .*argument"),
        embedded_server(tmp_path, binary=server_binary, options=["appendonly perhaps"]),
    ):
        pass


def test_program_that_hangs_is_killed_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "START_DEADLINE_S", 3.0)
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\necho warming up\nexec sleep 60\n")
    program.chmod(0o755)
    with (
        pytest.raises(RedisUnavailable, match="warming up"),
        embedded_server(tmp_path, binary=program),
    ):
        pass


def test_missing_wheel_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=re.escape(how_to_install("embedded"))):
        embedded.find_binary()


def test_server_dies_with_the_process_that_started_it(server_binary: Path, tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib\n"
        "from coordinator.embedded import embedded_server\n"
        "folder, binary = map(pathlib.Path, sys.argv[1:])\n"
        "with embedded_server(folder, binary=binary) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), str(server_binary)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    pid = int(child.stdout.readline())
    assert alive(pid)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    wait_until(lambda: not alive(pid), "the process has ended")
