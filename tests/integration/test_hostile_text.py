"""No text from Redis is markup: whatever a node, a record or a program says, lists print it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from samples import RUN, measurement

from coordinator.collect.groups import create_group, forget
from integration.nodes import cli
from integration.rows import plan
from worker.model import version
from worker.model.measurement import Outcome
from worker.model.text import iso_utc, printable
from worker.node.refusals import Cause, Refusals
from worker.wire import keyspace, scripts

pytestmark = pytest.mark.redis

#: What rich would take for markup, an emoji, a link or an escape.
TEXTS = ("[/]", "[x]", "[bold]", "fe80::b:1", ":smile:", "[link=file:///etc]", "[", "\\[/]", "[/a]")


def node(connection: redis.Redis, name: str, text: str) -> None:
    record = {
        "address": "fe80::b:1",
        "version": text,
        "wire": version.WIRE_VERSION,
        "icmp": text,
        "iperf3": text,
        "labels": json.dumps({"site": text}),
    }
    connection.hset(keyspace.node_key(name), mapping=dict(record))
    connection.zadd(keyspace.NODES, {name: scripts.redis_seconds(connection)})


def say(connection: redis.Redis, number: int, text: str) -> str:
    """Put a text wherever one of another program or machine is read; give the run that has it."""
    node(connection, f"n{number}", text)
    Refusals("a").note(connection, text, text, Cause.FOREIGN)
    planned, now, run = plan(), scripts.redis_seconds(connection), f"{RUN[:-4]}{number:04x}"
    record = {
        "plan": planned.packed(), "status": "done", "phase": 0, "by": text,
        "created": repr(now), "closed": repr(now),
    }  # fmt: skip
    connection.hset(keyspace.run_key(run), mapping=dict(record))
    connection.zadd(keyspace.RUNS, {run: now})
    failed = replace(
        measurement(1, run), source="n0", target="n1", outcome=Outcome.BAD_REPLY, error=text,
        latency_ms=None, address=text,
    )  # fmt: skip
    connection.xadd(keyspace.RESULTS, dict(failed.to_fields()))
    event = {
        "v": version.WIRE_VERSION, "kind": "event", "time": iso_utc(failed.started_at),
        "node": "a", "what": "address", "old": text, "new": text,
    }  # fmt: skip
    connection.xadd(keyspace.RESULTS, dict(event))
    create_group(connection, f"{keyspace.RESULTS}{text}", "0")
    return run


def test_every_list_prints_it_as_it_is(
    connection: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    last = [say(connection, *one) for one in enumerate(TEXTS)][-1]
    for command in (
        ["nodes"], ["runs"], ["show", last], ["show", last, "--svg", str(tmp_path / "a.svg")],
        ["collect", "--list"], ["lockers"], ["events"], ["doctor"], ["limits"], ["results"],
    ):  # fmt: skip
        said = cli(redis_url, *command)
        assert "bug in ptzmesh" not in said.stderr, (command, said.stderr)
        assert said.returncode in (0, 2, 4), (command, said.stderr)
        if command[0] in ("nodes", "runs", "results", "collect", "events"):
            assert [text for text in TEXTS if text not in said.stdout] == [], command


#: No text, what a terminal obeys, what turns a line around, and what a shell would run.
RAW = (b"\xff\xfe", b"\x1b]0;title\x07\x1b[31m", "a\u202eb".encode(), b"$(touch here)")


def say_raw(connection: redis.Redis, raw: bytes) -> None:
    """Put bytes wherever a name of ours is expected."""
    now = scripts.redis_seconds(connection)
    record = {"plan": raw, "status": "running", "phase": 0, "created": repr(now), "by": raw}
    connection.hset(b"ptzmesh:run:" + raw, mapping=dict(record))
    for key, score in (
        (keyspace.RUNS, now),
        (keyspace.RUNS_OPEN, now - 999),
        (keyspace.NODES, now),
    ):
        connection.zadd(key, {raw: score})
    for entry in ({"v": raw}, {"kind": "event", "v": raw}):
        connection.xadd(keyspace.RESULTS, dict(entry))
    connection.xgroup_create(keyspace.RESULTS, raw, "0")
    connection.rpush(keyspace.queue_key(keyspace.CONTROL_QUEUE), raw)
    connection.sadd(keyspace.queue_workers_key(keyspace.CONTROL_QUEUE), raw)
    for registry in ("wip", "failed"):
        connection.zadd(keyspace.registry_key(registry, keyspace.CONTROL_QUEUE), {raw: 1})


def test_no_bytes_of_redis_reach_the_terminal_as_they_are(
    connection: redis.Redis, redis_url: str
) -> None:
    for raw in RAW:
        say_raw(connection, raw)
    for command in (
        ["nodes"], ["runs"], ["show", "last"], ["collect", "--list"], ["events"], ["doctor"],
        ["limits"], ["results"],
    ):  # fmt: skip
        said = cli(redis_url, *command)
        shown = said.stdout + said.stderr
        assert "bug in ptzmesh" not in shown, (command, shown)
        assert shown.replace("\n", "").isprintable(), (command, shown)
        advice = [line for line in shown.splitlines() if "-> " in line]
        assert " $(touch" not in "".join(advice), (command, advice)
    for name in (raw.decode(errors="replace") for raw in RAW):
        forget(connection, printable(name))
    assert connection.xinfo_groups(keyspace.RESULTS) == []
