"""
The Python interface: trigger a mesh, get its matrix.

```python
from coordinator import Mesh

run = Mesh("redis://10.0.0.1:6379").run(count=10).wait()
print(run.matrix().rows())
```
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import redis

from coordinator.results.matrix import Matrix, make_report
from coordinator.runs import advance, runs
from coordinator.runs.follow import Update, follow_run
from coordinator.runs.planning import Selection, make_plan
from coordinator.runs.starting import Look, asking_look, start
from worker.model.measurement import Measurement
from worker.model.names import RunId
from worker.model.options import Options, PingOptions
from worker.model.plan import Plan
from worker.wire.connection import server
from worker.wire.node_record import Node
from worker.wire.registry import read_nodes
from worker.wire.round_trip import alone
from worker.wire.run_record import Run

if TYPE_CHECKING:
    # Nearly all runs are started without one.
    from coordinator.collect.oneshot import OneShot


class Mesh:
    """
    A mesh of nodes that share a Redis.

    Faults are `PtzmeshError`s: ConfigError for what is asked wrongly, RedisUnavailable when Redis
    cannot be used.
    """

    def __init__(self, redis_url: str) -> None:
        """
        Refer to a server; the first thing that is asked of it says whether a mesh can live there.

        That is: it is reachable, 6.2 or newer, and evicts nothing of ours.
        """
        self._url = redis_url
        self.connection = server.connect(redis_url, judged=True)

    def __repr__(self) -> str:
        """Name the server, without its secrets."""
        return f"Mesh({server.safe_url(self._url)!r})"

    def nodes(self) -> list[Node]:
        """Return the registered nodes, by name."""
        return read_nodes(self.connection)

    def plan(
        self,
        *,
        probes: Sequence[str] = ("ping",),
        nodes: Sequence[str] = (),
        sources: Sequence[str] = (),
        targets: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        sample: int | None = None,
        family: int | None = None,
        options: Mapping[str, Options] | None = None,
        registry: Sequence[Node] | None = None,
        **ping: Any,
    ) -> Plan:
        """
        Make a plan without starting it.

        `options` has those of each probe by its name, where they are not its defaults; without it,
        `ping` takes the fields of `PingOptions`. `registry` is what `nodes` gave just now.

        Raises:
            ConfigError: An unknown node, no node alive, no pair, or options out of bounds.
        """
        selection = Selection(
            nodes=nodes,
            sources=sources,
            targets=targets,
            labels=labels or {},
            sample=sample,
            family=family,
        )
        chosen = options or {"ping": PingOptions(**ping)}
        everyone = self.nodes() if registry is None else registry
        return make_plan(everyone, selection, probes, chosen)

    def run(self, *, join: bool = True, **what: Any) -> MeshRun:
        """Start a run of what `plan` would make, or join an open run of the same plan."""
        look = alone(self.connection, asking_look())
        return self.start(self.plan(registry=look.registry, **what), join=join, look=look)

    def start(
        self,
        plan: Plan,
        *,
        join: bool = True,
        registry: Sequence[Node] | None = None,
        look: Look | None = None,
    ) -> MeshRun:
        """
        Start a run of a plan, or join an open run of the same plan.

        `registry` is what `nodes` gave just now; `look` has it, and what else is looked at.

        Raises:
            RedisUnavailable: There is no room for results, the nodes send Redis more commands
                than they may, or its open runs take more memory than they may.
        """
        run_id, begun = start(
            self.connection, plan, by=_who(), join=join, registry=registry, look=look
        )
        return MeshRun(self.connection, run_id, begun=begun, joined=begun is None)

    def open(self, run: str) -> MeshRun:
        """Open a run by its id, an unambiguous part of it, or `last`."""
        return MeshRun(self.connection, runs.resolve_run(self.connection, run))


class MeshRun:
    """One run: follow it, wait for it, read its matrix."""

    def __init__(
        self,
        connection: redis.Redis,
        run_id: RunId,
        *,
        begun: Run | None = None,
        joined: bool = False,
    ) -> None:
        """Refer to a run; nothing is read. `begun`: as we began it; `joined`: others had before."""
        self.connection, self.id, self.begun, self.joined = connection, run_id, begun, joined
        self._file: OneShot | None = None

    def __repr__(self) -> str:
        """Name the run."""
        return f"MeshRun({self.id!r})"

    def state(self) -> Run:
        """Read the run as it stands."""
        return runs.read_run(self.connection, self.id)

    def write_to(self, file: OneShot) -> None:
        """Let whoever follows the run write its rows to `file`, before it is told of them."""
        self._file = file

    def updates(self, since: Run | None = None) -> Iterator[Update]:
        """
        Yield the run as it goes on, with what has arrived, until it has ended.

        `since` is the run as it stood, where that was read just now.
        """
        run = since or self.begun
        if self._file is None:
            return follow_run(self.connection, self.id, run)
        return self._file.follow(self.id, run)

    def measurements(self) -> Iterator[Measurement]:
        """Yield the run's measurements as they arrive, until it has ended."""
        for update in self.updates():
            yield from update.arrived

    def wait(self) -> MeshRun:
        """Wait until the run has ended."""
        for _ in self.updates():
            pass
        return self

    def matrix(self, probe: str | None = None) -> Matrix:
        """
        Return the matrix of a probe (the first one of the plan by default) as it stands.

        Raises:
            KeyError: The run has no such probe.
        """
        state = self.state()
        report = make_report(
            state.plan, (m for _, m in runs.of_run(self.connection, self.id, state))
        )
        return report.matrices[probe or state.plan.probes[0]]

    def cancel(self) -> None:
        """End the run now; pairs that are not measured get outcome `cancelled`."""
        advance.cancel(self.connection, self.id)


def _who() -> str:
    """Say who triggers, for `ptzmesh runs`; a container's user may have no name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
