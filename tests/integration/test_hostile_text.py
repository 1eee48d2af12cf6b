"""No text from Redis is markup: whatever a node, a record or a program says, lists print it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from samples import RUN, measurement

from coordinator.groups import create_group
from integration.nodes import cli
from integration.rows import plan
from worker import keyspace, wire
from worker.measurement import Outcome
from worker.refused import Cause, Refusals

pytestmark = pytest.mark.redis

#: What rich would take for markup, an emoji, a link or an escape.
TEXTS = ("[/]", "[x]", "[bold]", "fe80::b:1", ":smile:", "[link=file:///etc]", "[", "\\[/]", "[/a]")


def node(connection: redis.Redis, name: str, text: str) -> None:
    record = {
        "address": "fe80::b:1",
        "version": text,
        "wire": keyspace.WIRE_VERSION,
        "icmp": text,
        "iperf3": text,
        "labels": json.dumps({"site": text}),
    }
    connection.hset(keyspace.node_key(name), mapping=dict(record))
    connection.zadd(keyspace.NODES, {name: wire.redis_seconds(connection)})


def say(connection: redis.Redis, number: int, text: str) -> str:
    """Put a text wherever one of another program or machine is read; give the run that has it."""
    node(connection, f"n{number}", text)
    Refusals("a").note(connection, text, text, Cause.FOREIGN)
    planned, now, run = plan(), wire.redis_seconds(connection), f"{RUN[:-4]}{number:04x}"
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
        "v": keyspace.WIRE_VERSION, "kind": "event", "time": failed.to_fields()["started_at"],
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
