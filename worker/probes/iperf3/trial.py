"""
Whether the iperf3 of this machine can run a test at all: a server and a client of it, on loopback.
"""

from __future__ import annotations

import socket
import time

from worker.model.measurement import Outcome
from worker.model.names import IpLiteral
from worker.probes.iperf3.fault import fault_of
from worker.probes.iperf3.server import serve_one_test
from worker.probes.iperf3.tool import GRACE_S, Iperf3, Tool

LOCALHOST = IpLiteral("127.0.0.1")
#: It takes 50 ms; a busy arm64 board may need long to start two programs.
TRIAL_BYTES, TRIAL_S = 1000, 15.0


def try_here(iperf3: Iperf3) -> str:
    """Run a test of a few bytes with ourselves; return why it cannot be done, or nothing."""
    clients: list[Tool] = []

    def ask(port: int) -> None:
        argv = [iperf3.path, "--client", LOCALHOST, "--port", str(port)]
        clients.append(Tool([*argv, "--bytes", str(TRIAL_BYTES)]))

    served = serve_one_test(
        iperf3, LOCALHOST, [_free_port()], idle_s=TRIAL_S, deadline_s=TRIAL_S, on_ready=ask
    )
    faults = [served.error] if served.outcome is not Outcome.OK else []
    for client in clients:
        client.pump(time.monotonic() + GRACE_S)
        faults.append(fault_of(client))
        client.kill()
    return next(filter(None, faults), "")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        return int(probe.getsockname()[1])
