"""What a person reads of a Redis that does not serve: its true cause, and what to do."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import redis
from waiting import wait_until

from coordinator.embedded import EmbeddedServer, embedded_server
from integration.nodes import cli
from worker.model.errors import RedisUnavailable
from worker.wire.connection.server import connect, unavailable

pytestmark = pytest.mark.redis


def trouble(url: str, *command: str) -> str:
    """Give the line that a person reads when a command fails at a server."""
    connection = connect(url)
    with pytest.raises(redis.RedisError) as raised:
        connection.execute_command(*(command or ("PING",)))  # type: ignore[no-untyped-call]  # in redis-py
    connection.close()
    line = str(unavailable(raised.value, url))
    assert "\n" not in line
    assert ".;" not in line
    return line


@pytest.fixture(scope="module")
def server(
    server_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """A server on a port, with a password, that is put into each trouble in turn."""
    folder = tmp_path_factory.mktemp("trouble")
    with embedded_server(folder, binary=server_binary, unix=False) as made:
        yield made


def as_user(url: str, user: str) -> str:
    return re.sub(r"//.*@", f"//{user}", url)


def test_a_database_that_is_not_there_is_named(server: EmbeddedServer) -> None:
    port = server.url.rpartition(":")[2].partition("/")[0]
    url = f"{server.url.rpartition(':')[0]}:{port}/99"
    assert "has no database of that number" in trouble(url)


def test_no_password_a_wrong_one_and_a_user_without_the_right_are_told_apart(
    server: EmbeddedServer,
) -> None:
    with redis.Redis.from_url(server.url) as owner:
        owner.acl_setuser("low", enabled=True, passwords=["+low"], commands=["+ping"])
    assert "asks for a password, and got none" in trouble(as_user(server.url, ""))
    assert "refused the user or the password" in trouble(as_user(server.url, ":nope@"))
    assert "does not let this user do that" in trouble(as_user(server.url, "low:low@"), "INFO")


def test_a_server_with_all_the_clients_it_takes_is_not_one_that_does_not_run(
    server: EmbeddedServer,
) -> None:
    with redis.Redis.from_url(server.url) as owner:
        before = owner.config_get("maxclients")["maxclients"]
        owner.config_set("maxclients", 1)
        line = trouble(server.url)
        owner.config_set("maxclients", before)
    assert "as many clients as it takes" in line
    assert "raise maxclients" in line


def test_a_replica_and_one_that_lacks_replicas_say_so(server: EmbeddedServer) -> None:
    with redis.Redis.from_url(server.url) as owner:
        owner.config_set("min-replicas-to-write", 1)
        assert "min-replicas-to-write" in trouble(server.url, "SET", "a", "1")
        owner.config_set("min-replicas-to-write", 0)
        owner.slaveof("127.0.0.1", 1)
        assert "is a replica, which takes no writes" in trouble(server.url, "SET", "a", "1")
        owner.slaveof()


def test_a_server_that_is_full_says_what_is_full(server: EmbeddedServer) -> None:
    with redis.Redis.from_url(server.url) as owner:
        owner.config_set("maxmemory", 1)
        assert "is full: it uses its maxmemory" in trouble(server.url, "SET", "a", "1")
        owner.config_set("maxmemory", 0)


def test_what_is_not_there_is_told_from_what_cannot_be_reached(tmp_path: Path) -> None:
    assert "nothing listens there" in trouble("redis://127.0.0.1:1")
    assert "has no socket of that name" in trouble(f"unix://{tmp_path}/none.sock")


@contextmanager
def listening(answer: bytes, *, closes: bool = False) -> Iterator[int]:
    """Accept connections, and say the same to each, once it has asked; or nothing for ever."""
    with ExitStack() as kept, socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            with suppress(OSError):  # the test is over
                while True:
                    opened = kept.enter_context(door.accept()[0])
                    if answer:
                        opened.recv(100)
                        opened.sendall(answer)
                    if closes:
                        opened.shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield door.getsockname()[1]
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_another_program_on_the_port_is_recognised() -> None:
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        line = trouble(f"redis://127.0.0.1:{port}")
    assert "does not speak Redis' language" in line


@pytest.mark.parametrize("answer", [b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"*0\r\n"])
def test_what_answers_as_redis_does_and_is_none_is_not_taken_for_one(answer: bytes) -> None:
    with (
        listening(4 * answer) as port,
        connect(f"redis://127.0.0.1:{port}", judged=True) as connection,
        pytest.raises(RedisUnavailable, match="is version 0; ptzmesh needs"),
    ):
        connection.get("x")


HALF_A_REPLY = b"*2\r\n$6\r\nserver\r\n$5\r\nre"


def test_a_connection_that_ends_within_a_reply_is_no_answer() -> None:
    with listening(HALF_A_REPLY, closes=True) as port:
        line = trouble(f"redis://127.0.0.1:{port}")
    assert "ended the connection" in line


def test_a_silence_within_a_reply_ends_as_soon_as_one_before_it() -> None:
    with (
        listening(HALF_A_REPLY) as port,
        connect(f"redis://127.0.0.1:{port}", socket_timeout_s=0.3, retries=0) as connection,
        pytest.raises(redis.TimeoutError, match="Timeout reading"),
    ):
        connection.ping()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("Error -2 connecting to hub:6379. Name or service not known.", "does not resolve"),
        ("Error 113 connecting to hub:6379. No route to host.", "the VPN between"),
        ("Redis is loading the dataset in memory", "is loading its data"),
        ("DENIED Redis is running in protected mode because", "(protected mode)"),
        ("MISCONF Redis is configured to save RDB snapshots, but", "cannot save to its disk"),
        ("CLUSTERDOWN Hash slot not served", "is a cluster"),
        ("SELECT is not allowed in cluster mode", "is a cluster"),
        ("wrong number of arguments for 'auth' command", "is version 5 or older"),
    ],
)
def test_words_that_no_server_here_says_are_understood(words: str, said: str) -> None:
    line = unavailable(redis.ConnectionError(words), "redis://hub:6379")
    assert isinstance(line, RedisUnavailable)
    assert said in str(line)


WAIT_AGAIN = """
import sys, threading, time, redis
from worker.wire.connection import command_count
from worker.wire.connection.server import connect
def ask(connection):
    try:
        connection.ping()
    except redis.RedisError:
        pass
def waits(url):
    connection = connect(url)
    threading.Thread(target=ask, args=(connection,), daemon=True).start()
    while not any(link._sock for link in connection.connection_pool._in_use_connections):
        time.sleep(0.01)
    return command_count.is_kept_waiting()
server, silent = sys.argv[1:]
assert waits(silent)
ask(connect(server))
assert not waits(silent)
"""


def test_only_the_first_answer_of_redis_is_waited_for(server: EmbeddedServer) -> None:
    with listening(b"") as port:
        words = [sys.executable, "-c", WAIT_AGAIN, server.url, f"redis://127.0.0.1:{port}"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_silence_says_what_it_is_for_while_it_lasts(tmp_path: Path, scheme: str) -> None:
    said = tmp_path / "said"
    with listening(b"") as port, said.open("wb") as log:
        url = f"{scheme}://127.0.0.1:{port}"
        process = subprocess.Popen(
            [sys.executable, "-m", "coordinator.cli", "nodes", "--json"],
            env={**os.environ, "PTZMESH_REDIS_URL": url},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            waiting = f"waiting for Redis at {url} to answer".encode()
            wait_until(lambda: waiting in said.read_bytes(), "it says that it waits")
            assert process.poll() is None
        finally:
            process.kill()
            process.wait()


def test_options_of_other_programs_in_the_url_are_told_once(redis_url: str) -> None:
    url = f"{redis_url}?decode_responses=true&socket_timeout=3&surprise=1"
    for command in (["nodes"], ["runs"], ["collect", "--list"]):
        said = cli(url, *command)
        assert said.returncode == 0, said.stderr
        assert said.stderr.count("left out of the Redis URL") == 1
    refused = cli(f"{redis_url}?virtual_host=3", "nodes")
    assert refused.returncode == 2
    (line,) = refused.stderr.strip().splitlines()
    assert "virtual_host" in line
