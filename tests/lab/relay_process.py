"""The lab's side of the relay: starts it on the bridge, and tells it the delays."""

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import IO

from lab import relay
from lab.commands import ip_batch
from lab.node import Node
from lab.rules import RELAY_DEVICE, Delay, Pair

#: Frames that may wait for the relay to read them; the kernel's 1000 are 20 ms at 600 Mbit/s.
QUEUE_FRAMES = 10_000


class RelayProcess:
    """A running relay whose TAP device is a port of the bridge."""

    def __init__(self, bridge: Node) -> None:
        """Start it, and return when its device can take frames."""
        self._stack = ExitStack()
        self._process = self._stack.enter_context(_popen(bridge))
        self._stack.callback(self._process.kill)
        self._requests, self._answers = _pipes(self._process)
        with self._stack:
            self.set({})
            ip_batch(
                [
                    f"link set {RELAY_DEVICE} addrgenmode none txqueuelen {QUEUE_FRAMES}",
                    f"link set {RELAY_DEVICE} master br0",
                    # The bridge must go on knowing the nodes by their own ports, and send the
                    # relay nothing but what the rules forward to it.
                    f"link set {RELAY_DEVICE} type bridge_slave learning off"
                    " flood off mcast_flood off bcast_flood off",
                    f"link set {RELAY_DEVICE} up",
                ],
                namespace=bridge.namespace,
            )
            self._stack = self._stack.pop_all()

    def set(self, delays: Mapping[Pair, Delay]) -> None:
        """Replace all delays; in force when this returns."""
        table = [
            [*pair, delay.ms, delay.jitter_ms, delay.wake_ms] for pair, delay in delays.items()
        ]
        self._requests.write(json.dumps(table).encode() + b"\n")
        self._requests.flush()
        if self._answers.readline() != b"ok\n":
            raise RuntimeError(f"the relay ended with status {self._process.wait()}")

    def close(self) -> None:
        """End the relay; its device, and the frames that wait in it, go with it."""
        self._stack.close()


def _popen(bridge: Node) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        bridge.inside([sys.executable, "-ISu", relay.__file__, RELAY_DEVICE]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None:
        raise ValueError("the relay was started without pipes")
    return process.stdin, process.stdout
