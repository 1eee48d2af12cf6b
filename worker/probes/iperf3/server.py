"""
Far's side: a fresh iperf3 server for one test, and nothing before or after it.

A standing server wedges when a client is lost (esnet/iperf issues 225 and 1986), and serves anyone.
Ours is bound to the node's address, serves one client, ends when none comes, and is killed with its
process group at a deadline, or with us.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.model.measurement import Outcome
from worker.model.names import IpLiteral
from worker.probes.iperf3.errors import first_line
from worker.probes.iperf3.fault import fault_of
from worker.probes.iperf3.tool import IDLE_EXIT_VERSION, Iperf3, Tool

#: Printed once the socket listens (iperf_server_api.c), and flushed with --forceflush; with --json
#: a server prints nothing before its end.
LISTENING = b"Server listening on "
ACCEPTED = b"Accepted connection from "
IN_USE = b"Address already in use"
NOT_OURS = b"Cannot assign requested address"

#: From here on a server can be given the greatest rate that it accepts.
RATE_LIMIT_VERSION = (3, 9)
#: A test at the limit may exceed it for a moment: iperf3 averages over 5 s.
RATE_MARGIN = 1.25
#: Starting takes 5 ms; a busy arm64 board may need a second.
START_DEADLINE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Served:
    """
    How an answered test ended: `ok`, or why not.

    Attributes:
        outcome: `bad_reply` where the server itself failed, `cancelled` where it was to stop.
        error: One line, empty when `ok`.
        port: None when none was open.
        has_client: Somebody had connected.
    """

    outcome: Outcome
    error: str = ""
    port: int | None = None
    has_client: bool = False


def serve_one_test(
    iperf3: Iperf3,
    address: IpLiteral,
    ports: Sequence[int],
    *,
    idle_s: float,
    deadline_s: float,
    on_ready: Callable[[int], None],
    should_stop: Callable[[], bool] = lambda: False,
    max_mbps: float | None = None,
) -> Served:
    """
    Answer one test on the first free port; nothing is left of the server when this returns.

    Call it from the main thread: the server ends with the thread that started it.

    Args:
        iperf3: The program.
        address: Literal address of this machine on which to listen.
        ports: Those that may be used, in order.
        idle_s: The server ends when no client has come for so long.
        deadline_s: It is killed after so long, whatever it does.
        on_ready: Called with the port once the server listens.
        should_stop: Asked a few times a second.
        max_mbps: A test that sends more, both directions together, is ended; None is no limit.
    """
    deadline = time.monotonic() + deadline_s
    for port in ports:
        server = Tool(_argv(iperf3, address, port, idle_s, max_mbps))
        try:
            if not _listens(server, min(deadline, time.monotonic() + START_DEADLINE_S)):
                if IN_USE in server.stderr + server.stdout:
                    continue
                return _not_started(server.stderr + server.stdout, address)
            on_ready(port)
            if server.pump(deadline, should_stop=should_stop):
                outcome, error = _end_of(server, idle_s)
            elif time.monotonic() < deadline:
                outcome, error = Outcome.CANCELLED, "the iperf3 server was to stop before its end"
            else:
                error = f"the iperf3 server was ended at its deadline, after {deadline_s:g} s"
                outcome = Outcome.TIMEOUT
            has_client = ACCEPTED in server.stdout
            return Served(outcome=outcome, error=error, port=port, has_client=has_client)
        finally:
            server.kill()
    first, last = (min(ports), max(ports)) if ports else (0, 0)
    return Served(outcome=Outcome.TARGET_BUSY, error=f"none of the ports {first} to {last} is free")


def _argv(
    iperf3: Iperf3, address: IpLiteral, port: int, idle_s: float, max_mbps: float | None
) -> list[str]:
    argv = [iperf3.path, "--server", "--one-off", "--forceflush"]
    argv += ["--bind", address, "--port", str(port)]
    if iperf3.version >= IDLE_EXIT_VERSION:
        argv += ["--idle-timeout", str(max(1, math.ceil(idle_s)))]
    if max_mbps is not None and iperf3.version >= RATE_LIMIT_VERSION:
        argv += ["--server-bitrate-limit", str(math.ceil(max_mbps * RATE_MARGIN * 1e6))]
    return argv


def _listens(server: Tool, deadline: float) -> bool:
    server.pump(deadline, until=lambda: LISTENING in server.stdout)
    return LISTENING in server.stdout


def _not_started(text: bytes, address: str) -> Served:
    if NOT_OURS in text:
        error = f"{address} is no address of this machine, so that no test can reach it"
        return Served(outcome=Outcome.UNREACHABLE, error=error)
    why = first_line(text.decode("utf-8", "replace")) or "it does not say why"
    return Served(outcome=Outcome.BAD_REPLY, error=f"the iperf3 server did not start: {why}")


def _end_of(server: Tool, idle_s: float) -> tuple[Outcome, str]:
    if fault := fault_of(server):
        return Outcome.BAD_REPLY, f"its iperf3 server failed, {fault}"
    if ACCEPTED not in server.stdout:
        return Outcome.NO_REPLY, f"no client came within {idle_s:.0f} s"
    return Outcome.OK, ""
