"""The answering port of a real worker: who is answered, for how long, and what it holds up."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from counting_proxy import counting_proxy
from waiting import wait_until

from integration.nodes import workers
from worker.identity.answering import FOUND_S, OPEN_S, ask_for_ports
from worker.probes.answer import packet
from worker.probes.answer.packet import Kind
from worker.probes.answer.who_answers import Question, who_answers
from worker.wire import keyspace, rq_jobs
from worker.wire.connection import server

pytestmark = pytest.mark.redis

ADDRESS = "127.0.0.1"


@pytest.fixture
def node(redis_url: str, connection: redis.Redis, tmp_path: Path) -> Iterator[str]:
    with workers(redis_url, connection, tmp_path, ["a"], ["--ports", "46310-46317"]):
        yield "a"


def test_port_names_its_node_to_who_knows_the_secret_and_lets_the_responder_go_on(
    node: str, connection: redis.Redis
) -> None:
    found = ask_for_ports(connection, [node], wait_s=60)[node]
    assert found.number == 46317  # a test's server takes the first
    right = Question(address=ADDRESS, port=found.number, secret=found.secret)
    wrong = Question(address=ADDRESS, port=found.number, secret=b"x" * 16)
    closed = Question(address=ADDRESS, port=46311, secret=found.secret)
    assert who_answers([wrong, right, closed], "somebody") == {1: "a"}
    _check_sizes(found.number, found.secret)
    # Who asks meanwhile finds the same port; no second one is opened.
    assert ask_for_ports(connection, [node]) == {node: found}
    # Who wants it for the whole time has one of its own, which the responder is free to open.
    own = ask_for_ports(connection, [node], purpose="size-1", wait_s=60)[node]
    assert own.number == 46316
    assert own.secret != found.secret
    assert _is_open(own.number)
    opened_at = time.monotonic()
    wait_until(lambda: not _is_open(own.number or 0), "the port is closed", OPEN_S + 60)
    assert time.monotonic() - opened_at > FOUND_S
    assert connection.keys("ptzmesh:answer:*") == []
    assert connection.llen(keyspace.REFUSED) == 0


def test_no_more_than_256_are_asked_in_a_second() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((ADDRESS, 0))
        silent.setblocking(False)
        port, secret, seen = silent.getsockname()[1], b"x" * 16, list[float]()
        questions = [Question(address=ADDRESS, port=port, secret=secret)] * 100

        def should_stop() -> bool:
            with suppress(BlockingIOError):
                while silent.recv(1000):
                    seen.append(time.monotonic())
            return len(seen) >= 100

        assert who_answers(questions, "somebody", should_stop) == {}
    assert len(seen) == 100
    # In bursts of 32, an eighth of a second apart; a machine that stands still makes it longer.
    assert seen[-1] - seen[0] > 0.3


def _check_sizes(port: int, secret: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.settimeout(30)
        opened.connect((ADDRESS, port))  # a reply from another address would not arrive
        for kind, size in ((Kind.ONE_WAY, packet.LEAST_BYTES), (Kind.BOTH_WAYS, 9000)):
            asked = packet.request(kind, "somebody", secret, 9000)
            opened.send(asked)
            reply = opened.recv(packet.MOST_BYTES)
            said = packet.read_reply(reply, asked, secret)
            assert said is not None
            assert said.size == size


def _is_open(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        try:
            opened.bind((ADDRESS, port))
        except OSError:
            return True
    return False


def test_node_answers_for_itself_only_and_only_while_somebody_waits(
    node: str, connection: redis.Redis
) -> None:
    connection.set(keyspace.answer_key("b/"), "0a" * 16, ex=60)
    connection.set(keyspace.answer_key("a/odd"), "nonsense", ex=60)
    for token in ("b/", "a/odd", "a/nobody-waits"):
        queue = keyspace.serve_queue(node)
        job = rq_jobs.enqueuing(queue, keyspace.ANSWER, {"token": token})
        rq_jobs.carry_out(connection, job)
    wait_until(lambda: connection.llen(keyspace.REFUSED) == 2, "both are refused")
    wait_until(lambda: connection.llen(keyspace.queue_key(queue)) == 0, "the third was taken")
    assert connection.get(keyspace.answer_key("b/")) == b"0a" * 16
    assert not any(map(_is_open, range(46310, 46318)))


def test_port_of_the_tests_stays_free_though_it_is_the_only_one(
    redis_url: str, connection: redis.Redis, tmp_path: Path
) -> None:
    with workers(redis_url, connection, tmp_path, ["a"], ["--ports", "46318-46318"]):
        assert ask_for_ports(connection, ["a"], wait_s=60) == {}  # it has said that it has none
        assert connection.get(keyspace.answer_key("a/")).endswith(b" 0")
        assert not _is_open(46318)


def test_nodes_are_asked_a_few_in_a_round_trip_by_scripts_that_hold_up_nobody(
    redis_url: str, connection: redis.Redis
) -> None:
    nodes = [f"nobody-{i}" for i in range(40)]
    ask_for_ports(connection, ["first"], wait_s=0.0)  # the server gets the script
    connection.config_resetstat()
    with counting_proxy(redis_url) as proxy, server.connect(proxy.url) as far:
        far.ping()
        proxy.trips = 0
        assert ask_for_ports(far, nodes, wait_s=0.0) == {}
        looks = 1
        assert proxy.trips == looks + len(nodes) / rq_jobs.JOBS_AT_A_TIME
        assert ask_for_ports(far, nodes[:1], wait_s=0.0) == {}
    scripts = connection.info("commandstats")["cmdstat_evalsha"]
    assert scripts["calls"] == len(nodes) + 1
    assert scripts["usec_per_call"] < 1000
    for node in nodes:  # also the one that was asked twice
        assert connection.llen(keyspace.queue_key(keyspace.serve_queue(node))) == 1


def test_node_whose_responder_is_not_there_has_no_port(connection: redis.Redis) -> None:
    assert ask_for_ports(connection, ["nobody"], wait_s=0.1) == {}
    assert ask_for_ports(connection, []) == {}
