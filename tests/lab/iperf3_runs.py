"""One throughput test between two namespaces, each end a program of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.node import Node
from lab.transfer_runs import iperf3_on

END = str(Path(__file__).with_name("iperf3_end.py"))
#: Of servers, and of whatever is waited for: a busy machine's second is long.
LIMIT_S = 120.0
IDLE_RTT_MS = 1.0


@contextmanager
def started(node: Node, role: str, **asked: Any) -> Iterator[subprocess.Popen[str]]:
    """Run one end on a node; it is killed with the block."""
    argv = node.inside([sys.executable, END, role, json.dumps(asked)])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as end:
        try:
            yield end
        finally:
            end.kill()


def line(end: subprocess.Popen[str]) -> Any:
    assert end.stdout is not None
    return json.loads(end.stdout.readline())


@contextmanager
def server(
    node: Node, *, idle_s: float = 60, deadline_s: float = LIMIT_S
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Serve one test on a node; gives the end and its port."""
    with started(node, "serve", address=node.address, idle_s=idle_s, deadline_s=deadline_s) as end:
        yield end, line(end)


def asked_of(
    near: Node,
    far: Node,
    port: int,
    *,
    udp: bool = False,
    rtt_ms: float = IDLE_RTT_MS,
    **options: Any,
) -> dict[str, Any]:
    return {
        "near": near.address,
        "far": far.address,
        "port": port,
        "udp": udp,
        "idle_rtt_ms": rtt_ms,
        "options": options,
    }


def run_client(near: Node, asked: dict[str, Any]) -> list[dict[str, Any]]:
    done = near.run([sys.executable, END, "measure", json.dumps(asked)], timeout_s=LIMIT_S)
    return [json.loads(text) for text in done.stdout.splitlines()]


def measured(near: Node, far: Node, **options: Any) -> list[dict[str, Any]]:
    """Run one whole test and see that nothing of it is left."""
    with server(far) as (end, port):
        found = run_client(near, asked_of(near, far, port, **options))
        assert line(end) == ["ok", "", port]
    assert not iperf3_on(far)
    assert not iperf3_on(near)
    return found


def one(near: Node, far: Node, **options: Any) -> dict[str, Any]:
    (found,) = measured(near, far, **options)
    assert (found["outcome"], found["error"]) == ("ok", "")
    return found
