"""`ptzmesh demo`: a real mesh on this machine, with nothing to set up."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from coordinator.cli.settings.options import file_option
from coordinator.cli.terminal.screen import err
from coordinator.cli.view.report import save_svg
from coordinator.cli.view.watch import watch
from coordinator.collect.oneshot import OneShot
from coordinator.embedded import embedded_server
from coordinator.mesh import Mesh
from coordinator.results.matrix import make_report
from worker.model.errors import PtzmeshError, RunIncomplete, ToolError
from worker.model.options import PingOptions, ThroughputOptions
from worker.model.text import one_line
from worker.probes.icmp.echo_socket import PERMIT
from worker.probes.icmp.engine import icmp_capability
from worker.probes.iperf3.tool import find_iperf3
from worker.wire.connection.redis_url import VARIABLES

NODES = {f"node-{n}": f"127.0.0.{n}" for n in range(1, 5)}
#: A worker registers within a second; a small board may take longer.
READY_DEADLINE_S = 60.0
STOP_DEADLINE_S = 10.0

Worker = subprocess.Popen[bytes]


@click.command(
    epilog="""\b
Examples:
  ptzmesh demo
  ptzmesh demo --csv /tmp/metrics.csv
  ptzmesh demo --count 100
"""
)
@file_option(
    "--csv",
    "csv_path",
    default="network_metrics.csv",
    instead="leave --csv out, or name a file",
    show_default=True,
    help="File for the results; rows are added if it exists.",
)
@click.option("--count", type=int, default=10, show_default=True, help="Echoes to each target.")
def demo(csv_path: Path, count: int) -> None:
    """Start a Redis and four workers here, measure their mesh, leave a CSV and a picture."""
    ping = PingOptions(count=count)
    if icmp_capability() == "none":
        raise ToolError(f"this user may not ping; allow it with: {PERMIT}")
    with (
        tempfile.TemporaryDirectory(prefix="ptzmesh-demo-") as folder,
        embedded_server(Path(folder)) as server,
        OneShot(Mesh(server.url).connection, csv_path) as file,
        _workers(server.url, Path(folder)) as workers,
    ):
        mesh = Mesh(server.url)
        wait_until_ready(mesh, workers, Path(folder))
        fault = find_iperf3().fault
        probes = ("ping",) if fault else ("ping", "throughput")
        if fault:
            err().print(f"throughput is left out: {fault}", markup=False)
        options = {"ping": ping, "throughput": ThroughputOptions(duration_s=1)}
        run = mesh.run(probes=probes, options=options)
        run.write_to(file)
        state = watch(run, as_json=False)
        file.check_whole(state)
        picture = csv_path.with_suffix(".svg")
        save_svg(state, make_report(state.plan, run.measurements()), picture)
    err().print(f"{file.rows} rows added to {csv_path.resolve()}")
    err().print(f"the matrix as a picture in {picture.resolve()}")
    if state.failed:
        raise RunIncomplete(f"{state.failed} of {state.expected} pairs have no number")


@contextlib.contextmanager
def _workers(redis_url: str, folder: Path) -> Iterator[dict[str, Worker]]:
    """Run one worker a node until the block ends; each has its own log in the folder."""
    ours = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment = {**ours, "PTZMESH_REDIS_URL": redis_url}
    started: dict[str, Worker] = {}
    try:
        for name, address in NODES.items():
            command = [sys.executable, "-m", "coordinator.cli", "worker", "--name", name]
            command += ["--address", address, "--state-dir", str(folder / "state")]
            with (folder / f"{name}.log").open("wb") as log:
                started[name] = subprocess.Popen(command, env=environment, stderr=log)
        yield started
    finally:
        for process in started.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_DEADLINE_S
        for process in started.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until_ready(mesh: Mesh, workers: Mapping[str, Worker], folder: Path) -> None:
    """
    Wait until all nodes are alive.

    Raises:
        PtzmeshError: A worker ended, which no waiting helps, or they take too long.
    """
    deadline = time.monotonic() + READY_DEADLINE_S
    while sum(node.alive for node in mesh.nodes()) < len(NODES):
        for name in (name for name, process in workers.items() if process.poll() is not None):
            log = (folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
            raise PtzmeshError(f"the demo's worker {name} ended: {one_line(''.join(log[-1:]))}")
        if time.monotonic() > deadline:
            raise PtzmeshError(
                f"the workers did not register within {READY_DEADLINE_S:.0f} s: this "
                "machine is very busy; try again"
            )
        time.sleep(0.05)
