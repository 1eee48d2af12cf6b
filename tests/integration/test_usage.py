"""The count of commands that a process sends, held against the server's own count."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import redis
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from waiting import wait_until

from worker.wire.connection import command_count, server, slots

pytestmark = pytest.mark.redis


def calls(watcher: redis.Redis) -> int:
    """Commands that the server has executed, this one's own not yet included."""
    stats: Any = watcher.info("commandstats")
    return sum(int(one["calls"]) for one in stats.values())


def clients(watcher: redis.Redis) -> Any:
    return watcher.info("clients")


def open_two(connection: redis.Redis) -> None:
    """Open what the work needs: an older server refuses part of a handshake without counting it."""
    pool: Any = connection.connection_pool
    for opened in [pool.get_connection(), pool.get_connection()]:
        pool.release(opened)


def one_by_one(connection: redis.Redis) -> None:
    for number in range(7):
        connection.set("ptzmesh:x", number)
    connection.blpop(["ptzmesh:none"], timeout=1)


def pipelines(connection: redis.Redis) -> None:
    for transaction in (True, False):
        pipeline = connection.pipeline(transaction=transaction)
        for number in range(5):
            pipeline.rpush("ptzmesh:list", number)
        pipeline.execute()
        connection.llen("ptzmesh:list")  # one command is one again


def watched(connection: redis.Redis) -> None:
    with connection.pipeline() as pipeline:
        pipeline.watch("ptzmesh:x")  # type: ignore[no-untyped-call]  # untyped in redis-py
        pipeline.get("ptzmesh:x")
        pipeline.multi()
        pipeline.set("ptzmesh:x", 1)
        pipeline.execute()


def refused(connection: redis.Redis) -> None:
    connection.set("ptzmesh:text", "text")
    with pytest.raises(redis.ResponseError):
        connection.lpush("ptzmesh:text", "no list")


def from_two_threads(connection: redis.Redis) -> None:
    threads = [threading.Thread(target=pipelines, args=(connection,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("work", [one_by_one, pipelines, watched, refused, from_two_threads])
def test_each_command_that_is_sent_counts_as_the_server_counts_it(
    redis_url: str, work: Callable[[redis.Redis], None]
) -> None:
    with redis.Redis.from_url(redis_url) as watcher, server.connect(redis_url) as connection:
        open_two(connection)
        watcher.ping()
        theirs, ours = calls(watcher), command_count.commands_sent()
        work(connection)
        assert command_count.commands_sent() - ours == calls(watcher) - theirs - 1  # the first INFO


def test_a_script_counts_once_whatever_it_does_inside(redis_url: str) -> None:
    with server.connect(redis_url) as connection:
        script = connection.register_script("for i = 1, 50 do redis.call('PING') end return 1")
        script()  # loads it, too
        before = command_count.commands_sent()
        script()
        assert command_count.commands_sent() - before == 1


def test_what_redis_could_not_be_asked_is_not_counted(redis_url: str) -> None:
    with server.connect(f"{redis_url}.not-there", retries=0) as connection:
        before = command_count.commands_sent()
        for send in (connection.ping, connection.pipeline().ping().execute):
            with pytest.raises(redis.ConnectionError):
                send()
        assert command_count.commands_sent() == before


def test_a_killed_child_leaves_its_count_and_blocks_nobody(redis_url: str) -> None:
    before = command_count.commands_sent()
    pid = os.fork()
    if pid == 0:
        with server.connect(redis_url) as connection:
            pipelines(connection)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    counted = command_count.commands_sent() - before
    assert counted >= 14  # two pipelines of 5, MULTI and EXEC, two more, and a handshake
    with server.connect(redis_url) as connection:
        connection.ping()
    assert command_count.commands_sent() > before + counted


def test_a_work_horse_counts_apart_from_the_worker_that_forked_it() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        own = []
        for role in ("prober", "responder"):
            slots.take(role)
            own.append(slots.mine())
            horse = os.fork()
            if horse == 0:
                os.write(writer, bytes([slots.mine()]))
                os._exit(0)
            os.waitpid(horse, 0)
        os.write(writer, bytes(own))
        os._exit(0)
    os.waitpid(pid, 0)
    seen = os.read(reader, 16)
    assert len(set(seen) | {slots.mine()}) == 5


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://h", Connection),
        ("rediss://h", SSLConnection),
        ("unix:///run/redis.sock", UnixDomainSocketConnection),
    ],
)
def test_every_kind_of_connection_is_counted(url: str, kind: type[Any]) -> None:
    made = server.connect(url).connection_pool.connection_class
    assert issubclass(made, kind)
    assert made.read_response is command_count._Counted.read_response
    assert made.connect is command_count._Counted.connect


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_new_connection_is_tried_once_however_often_a_command_is(retries: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        tries = []

        def hang_up_on_each() -> None:
            with suppress(OSError):  # the listener is closed
                while True:
                    link, _ = listener.accept()
                    tries.append(link)
                    link.close()

        thread = threading.Thread(target=hang_up_on_each)
        thread.start()
        with server.connect(url, retries=retries) as connection, pytest.raises(redis.RedisError):
            connection.ping()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(tries) == 1


def test_connections_are_hung_up_while_they_wait_for_an_answer(redis_url: str) -> None:
    with (
        redis.Redis.from_url(redis_url) as watcher,
        server.connect(redis_url, socket_timeout_s=60, retries=0) as connection,
    ):
        raised: list[Exception] = []

        def wait() -> None:
            try:
                connection.blpop(["ptzmesh:none"], timeout=50)
            except redis.RedisError as exc:
                raised.append(exc)

        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: clients(watcher)["blocked_clients"] == 1, "the command waits in Redis")
        server.hang_up(connection)
        thread.join(30)
        assert [type(exc) for exc in raised] == [redis.ConnectionError]


def test_a_pool_that_is_dropped_after_a_fork_keeps_no_connection_open(redis_url: str) -> None:
    with server.connect(redis_url) as connection:
        connection.ping()
        pool: Any = connection.connection_pool
        pool.disconnect()
        connection.ping()
        made = weakref.ref(pool._available_connections[0])
        pool.reset()  # as redis-py does in a process that was forked
        gc.collect()
        assert made() is None
