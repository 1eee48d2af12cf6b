"""Redis' own clock is set while a mesh runs: nobody is lost by it, and no result is hidden."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from chaos.clock import NodeClock, build, why_unusable
from missing import missing
from waiting import wait_until

from coordinator.embedded import EmbeddedServer, embedded_server
from coordinator.mesh import Mesh
from coordinator.runs.advance import advance
from coordinator.runs.runs import of_run
from integration.nodes import alive, workers
from worker.model.measurement import Outcome
from worker.probes.icmp.engine import icmp_capability
from worker.wire import keyspace, liveness, scripts
from worker.wire.registry import read_nodes

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping"),
]

NODES = ("cam-1", "cam-2", "hub")
HOUR_S = 3600.0
YEARS_S = 56 * 365 * 86400.0


@dataclass(frozen=True)
class Stepped:
    """A server on a clock of its own."""

    server: EmbeddedServer
    clock: NodeClock
    operator: redis.Redis

    def step(self, ahead_s: float) -> None:
        self.clock.step(ahead_s)
        there = lambda: abs(scripts.redis_seconds(self.operator) - time.time() - ahead_s) < 60  # noqa: E731
        wait_until(there, f"the clock of Redis is {ahead_s:g} s ahead")

    def heard_lately(self, name: str) -> bool:
        heard_at = self.operator.zscore(keyspace.NODES, name)
        return abs(scripts.redis_seconds(self.operator) - heard_at) < liveness.ALIVE_S


@pytest.fixture
def stepped(server_binary: Path, tmp_path: Path) -> Iterator[Stepped]:
    reason = why_unusable()
    if reason is not None:
        missing(reason)
    clock = NodeClock(build(tmp_path), tmp_path / "clock")
    on_its_clock = tmp_path / "server"
    on_its_clock.write_text(f'#!/bin/sh\nexec {" ".join(clock.prefix)} {server_binary} "$@"\n')
    on_its_clock.chmod(0o755)
    with embedded_server(tmp_path / "redis", binary=on_its_clock) as server:
        operator = redis.Redis.from_url(server.url)
        yield Stepped(server, clock, operator)
        operator.close()


@pytest.mark.parametrize(
    "ahead_s", [pytest.param(HOUR_S, marks=pytest.mark.long), pytest.param(-HOUR_S)]
)
def test_a_step_in_the_middle_of_a_run_loses_nobody(
    stepped: Stepped, tmp_path: Path, ahead_s: float
) -> None:
    with workers(stepped.server.url, stepped.operator, tmp_path, NODES) as processes:
        mesh = Mesh(stepped.server.url)
        run = mesh.run(count=150)
        begun = [f"started:0:{place}" for place in range(len(NODES))]
        wait_until(
            lambda: all(stepped.operator.hmget(keyspace.run_key(run.id), begun)),
            "both rows have begun",
        )
        others = [processes[name].pid for name in NODES[1:]]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        stepped.step(ahead_s)
        wait_until(lambda: stepped.heard_lately("cam-1"), "cam-1 is heard")
        # Whoever looks at the others now finds that they were heard an hour ago, or will be.
        advance(stepped.operator, run.id, patient=True)
        for pid in others:
            os.kill(pid, signal.SIGCONT)
        measured = list(run.measurements())
        assert {one.outcome for one in measured} == {Outcome.OK}
        assert len(measured) == 6
        assert len(list(of_run(stepped.operator, run.id))) == 6
        wait_until(lambda: len(alive(stepped.operator)) == 3, "all three are alive")
        # A node that dies after the step is lost as ever.
        os.kill(processes["cam-2"].pid, signal.SIGKILL)
        again = mesh.run(count=1)
        outcomes = {one.source: one.outcome for one in again.measurements()}
        assert outcomes["cam-1"] is Outcome.OK
        assert outcomes["cam-2"] in (Outcome.SOURCE_LOST, Outcome.OK)
        wait_until(lambda: "cam-2" not in alive(stepped.operator), "cam-2 is not alive any more")


def test_a_server_without_a_clock_of_its_own_hides_no_result(
    stepped: Stepped, tmp_path: Path
) -> None:
    with workers(stepped.server.url, stepped.operator, tmp_path, NODES[:2]):
        mesh = Mesh(stepped.server.url)
        assert len(list(mesh.run(count=1).measurements())) == 2
        stepped.step(-YEARS_S)  # a restart of a machine whose clock has no battery: it is 1970
        wait_until(
            lambda: all(node.alive for node in read_nodes(stepped.operator)), "all nodes are alive"
        )
        run = mesh.run(count=2, join=False)
        assert len(list(run.measurements())) == 2
        assert len(list(of_run(stepped.operator, run.id))) == 2
        assert not any(cell.value is None for cell in mesh.open(run.id).matrix().cells.values())
