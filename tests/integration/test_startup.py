"""A worker that starts before Redis waits for it, and fails at once where waiting helps nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from programs import start_worker
from waiting import wait_until

from coordinator.embedded import EmbeddedServer
from worker.wire.connection import server

pytestmark = pytest.mark.redis


@contextmanager
def starting(url: str, folder: Path, more: Sequence[str] = ()) -> Iterator[int]:
    """Start node a; it ends within seconds of being told to, whatever it waits for."""
    process = start_worker(url, "a", "127.0.0.1", folder, more)
    try:
        yield process.pid
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def log_of(folder: Path) -> str:
    return (folder / "a.log").read_text()


def test_redis_that_starts_later_is_waited_for_in_one_line(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    redis_server.kill()
    with starting(redis_server.url, tmp_path) as pid:
        wait_until(lambda: "waiting for Redis" in log_of(tmp_path), "it says that it waits")
        redis_server.start()
        wait_until(lambda: "is ready" in log_of(tmp_path), "it is ready")
        assert Path(f"/proc/{pid}").exists()
    assert log_of(tmp_path).count("waiting for Redis") == 1
    assert "Redis is there after" in log_of(tmp_path)
    assert "error: " not in log_of(tmp_path)


def test_a_redis_that_is_a_replica_for_the_moment_is_waited_for(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    with server.connect(redis_server.url) as owner:
        owner.slaveof("127.0.0.1", 1)
        with starting(redis_server.url, tmp_path):
            replica = "waiting for Redis, tried again every 3 s: Redis at"
            wait_until(lambda: replica in log_of(tmp_path), "it says that it waits")
            assert "is a replica, which takes no writes" in log_of(tmp_path)
            owner.slaveof()
            wait_until(lambda: "is ready" in log_of(tmp_path), "it is ready")


def test_a_name_that_does_not_resolve_yet_is_waited_for(tmp_path: Path) -> None:
    with starting("redis://no-such.invalid", tmp_path):
        wait_until(lambda: "does not resolve" in log_of(tmp_path), "it says that it waits")


def test_what_waiting_does_not_fix_ends_the_start_at_once(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    with server.connect(redis_server.url) as owner:
        owner.config_set("requirepass", "hunter2")
    wrong = redis_server.url.replace("unix://", "unix://:wrong@")
    for url, more, code, word in (
        (redis_server.url, (), 3, "asks for a password, and got none"),
        (wrong, (), 3, "refused the user or the password"),
        ("redis://127.0.0.1:1", ("--no-wait",), 3, "nothing listens there"),
        ("http://127.0.0.1:1", (), 2, "the Redis URL must look like"),
    ):
        process = start_worker(url, "a", "127.0.0.1", tmp_path, more)
        assert process.wait(60) == code
        lines = log_of(tmp_path).splitlines()
        assert len(lines) == 1, lines
        assert word in lines[0]
        (tmp_path / "a.log").unlink()
