"""
How long the commands take that only look, beside an interpreter that imports what they stand on.

In turn: `python -c "import redis, click, rich"`, `ptzmesh` as it was, and as it is; each with a
mesh of 16 nodes, a dozen runs and 240 results in a Redis of its own, as it writes them.
Run: python tests/bench/bench_start.py [--repetitions 15] [--server PATH]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from statistics import median

# Last: older code finds its own.
sys.path.append(str(Path(__file__).resolve().parents[1]))

import before
from samples import ping_statistics

from coordinator.embedded import embedded_server
from coordinator.mesh import Mesh
from coordinator.runs.advance import advance
from worker.model.measurement import Measurement, Outcome
from worker.model.options import PingOptions
from worker.model.plan import Plan, PlannedNode
from worker.publish.outbox import Letter, publish
from worker.wire import keyspace
from worker.wire.connection.server import connect
from worker.wire.node_record import Node

NODES, RUNS = 16, 12
BARE = [sys.executable, "-c", "import redis, click, rich"]
COMMANDS = ("nodes", "runs", "show", "results", "--help")
#: It has a password, which stands on no command line.
URL = "PTZMESH_REDIS_URL"
#: What is started, and its Redis.
Program = tuple[Sequence[str], str]
#: Results published at once; more are refused.
BATCH = 10


def main() -> None:
    arguments = _arguments()
    if arguments.fill:
        _fill(os.environ[URL])
        return
    with (
        before.tree() as older,
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        embedded_server(Path(folder), binary=arguments.server, unix=False) as server,
    ):
        # Each reads what it has written itself, as the form of a record may differ.
        urls = {"old": server.url[:-1] + "1", "new": server.url[:-1] + "2"}
        fill = [sys.executable, __file__, "--fill"]
        older_packages = {**before.environment(older), URL: urls["old"]}
        subprocess.run(fill, check=True, env=older_packages, cwd=older)
        subprocess.run(fill, check=True, env={**os.environ, URL: urls["new"]}, cwd=folder)
        programs = {"old": older / "ptzmesh", "new": Path(sys.executable).with_name("ptzmesh")}
        for command in COMMANDS:
            asked = {name: ([str(one), command], urls[name]) for name, one in programs.items()}
            _compare(command, {"bare": (BARE, ""), **asked}, arguments.repetitions)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--server", type=Path)
    parser.add_argument("--fill", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _fill(url: str) -> None:
    """Write a mesh as its nodes would, by the packages that are first on the path."""
    connection = connect(url)
    names = [f"camera-{number}" for number in range(1, NODES + 1)]
    for number, name in enumerate(names, 1):
        node = Node(
            name=name,
            address=f"10.0.0.{number}",
            labels={"site": f"hall-{number % 4}"},
            accepts=True,
            version="0.2.0",
            icmp="raw",
            iperf3="3.12",
            redis_commands_per_s=0.7,
            clock_offset_ms=0.2,
            clock_offset_uncertainty_ms=0.1,
        )
        connection.hset(keyspace.node_key(name), mapping=node.to_fields())
        connection.zadd(keyspace.NODES, {name: time.time()})
    everyone = tuple(range(NODES))
    for number in range(RUNS):
        plan = Plan(
            nodes=tuple(
                PlannedNode(name=name, address=f"10.0.0.{place}")
                for place, name in enumerate(names, 1)
            ),
            sources=everyone,
            targets=everyone,
            options={"ping": PingOptions(count=10 + number)},
        )
        run = Mesh(url).start(plan, registry=[]).id
        if number == RUNS - 1:
            pairs = [(s, t) for s in everyone for t in everyone if s != t]
            letters = [Letter(plan.bit(s, t), _result(run, names[s], names[t])) for s, t in pairs]
            for first in range(0, len(letters), BATCH):
                publish(connection, letters[first : first + BATCH])
            advance(connection, run)


def _result(run: str, source: str, target: str) -> Measurement:
    rtts = [0.3 + hash((source, target, number)) % 997 / 1e4 for number in range(10)]
    return Measurement(
        run=run,
        probe="ping",
        source=source,
        target=target,
        address="10.0.0.1",
        started_at=datetime.now(timezone.utc) - timedelta(seconds=1),
        outcome=Outcome.OK,
        error="",
        latency_ms=sum(rtts) / 10,
        packet_loss_pct=0.0,
        detail=ping_statistics(rtts),
    )


def _compare(command: str, programs: Mapping[str, Program], repetitions: int) -> None:
    """Start each in turn, and print the medians, and how often the bare imports they take."""
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for program in programs.values():
        _time(program)  # its files are in memory then, and compiled
    for _ in range(repetitions):
        for name, program in programs.items():
            took[name].append(_time(program))
    for name, times in took.items():
        pairs = list(zip(times, took["bare"], strict=True))
        wall, cpu = (median(one[kind] for one in times) for kind in (0, 1))
        ratio, cpu_ratio = (median(one[k] / bare[k] for one, bare in pairs) for k in (0, 1))
        print(
            f"{command:7} {name:5} {wall:6.3f} s wall, {cpu:6.3f} s CPU; over the bare imports "
            f"{ratio:4.2f}, CPU {cpu_ratio:4.2f}"
        )


def _time(program: Program) -> tuple[float, float]:
    """Run a program to its end; return the seconds of wall and of CPU."""
    arguments, url = program
    begun = time.perf_counter()
    process = os.posix_spawn(
        arguments[0],
        arguments,
        {**os.environ, URL: url},
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, used = os.wait4(process, 0)
    assert status == 0, f"{arguments} ended with {status}"
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
