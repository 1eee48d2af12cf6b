"""Calls of `ptzmesh doctor`, and nodes that it can find."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import forked
import pytest
import redis

from worker.model.version import WIRE_VERSION
from worker.probes.icmp.engine import icmp_capability
from worker.wire import keyspace, scripts

may_ping = pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")


class Said:
    """What one call said: exit code, checks by name, and all of it."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.text = done.returncode, done.stdout + done.stderr
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]

    def __getitem__(self, name: str) -> dict[str, Any]:
        (found,) = [one for one in self.lines if one["check"] == name]
        return found

    def failed(self) -> set[str]:
        return {one["check"] for one in self.lines if one["status"] == "fail"}


def doctor(url: str, *arguments: str, **environ: str) -> Said:
    environment = {**os.environ, "PTZMESH_REDIS_URL": url, **environ}
    done = forked.run([*forked.START, "doctor", "--json", *arguments], env=environment, timeout=300)
    said = Said(done)
    assert said.lines, said.text
    for one in said.lines:
        assert bool(one["fix"]) == (one["status"] in ("warn", "fail")), one
    return said


def beat(connection: redis.Redis, name: str, silent_s: float = 0.0, **fields: str) -> None:
    """Register a node as its heartbeat would."""
    connection.zadd(keyspace.NODES, {name: scripts.redis_seconds(connection) - silent_s})
    record = {"address": "127.0.0.1", "version": "0.1.0", "wire": str(WIRE_VERSION)}
    connection.hset(keyspace.node_key(name), mapping={**record, **fields})
