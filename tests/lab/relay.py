"""
Hold Ethernet frames back: each that the kernel sends to a TAP device is given back to it later.

A program of its own, so that a busy test process cannot spoil its timing. netem would do the
same, but not every kernel has it. Run as `python relay.py DEVICE` in the bridge's namespace, as
root; each line on stdin is a JSON list of [sender MAC, receiver MAC, delay ms, jitter ms, wake ms]
that replaces the one before, answered by a line on stdout. It ends when stdin does.
"""

import fcntl
import gc
import heapq
import json
import os
import random
import select
import struct
import sys
import time
from contextlib import suppress

TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x0002 | 0x1000

#: Room for an Ethernet frame: TAP without offloads gives none larger than the MTU and its header.
FRAME_BYTES = 2048

#: A way that sleeps does so when nothing has passed for so long.
DOZE_S = 0.15

#: Frames read between two looks at the clock, so that a flood cannot hold back what is due.
BURST_FRAMES = 32


class DelayLine:
    """
    Frames in order of the time they are due.

    >>> line = DelayLine()
    >>> line.delays_s[b"frame"] = (0.02, 0.0, 0.0)
    >>> line.add(b"frame", now_s=1.0)
    >>> line.due(now_s=1.01), line.due(now_s=1.03)
    ([], [b'frame'])
    """

    def __init__(self) -> None:
        """
        Begin without frames.

        `delays_s` is delay, jitter, and the time to wake, by the first 12 bytes of a frame.
        """
        self.delays_s: dict[bytes, tuple[float, float, float]] = {}
        self._waiting: list[tuple[float, int, bytes]] = []
        self._count = 0
        self._last_due_s: dict[bytes, float] = {}
        self._awake_s: dict[bytes, float] = {}

    def add(self, frame: bytes, now_s: float) -> None:
        """Keep a frame that arrived at `now_s`; frames of one pair never overtake each other."""
        pair = frame[:12]
        delay_s, jitter_s, wake_s = self.delays_s.get(pair, (0.0, 0.0, 0.0))
        last_s = self._last_due_s.get(pair, float("-inf"))
        if now_s - last_s > DOZE_S:
            self._awake_s[pair] = now_s + wake_s
        due_s = now_s + delay_s + (random.uniform(-jitter_s, jitter_s) if jitter_s else 0.0)
        due_s = max(due_s, last_s, self._awake_s[pair])
        self._last_due_s[pair] = due_s
        self._count += 1
        heapq.heappush(self._waiting, (due_s, self._count, frame))

    def due(self, now_s: float) -> list[bytes]:
        """Take out the frames whose time has come."""
        frames = []
        while self._waiting and self._waiting[0][0] <= now_s:
            frames.append(heapq.heappop(self._waiting)[2])
        return frames

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until the next frame is due; None when none waits."""
        return max(self._waiting[0][0] - now_s, 0.0) if self._waiting else None


def open_tap(device: str) -> int:
    """Make a TAP device that lives as long as the descriptor."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP_NO_PI))
    return tap


def parse_delays(line: bytes) -> dict[bytes, tuple[float, float, float]]:
    """Read a line of stdin into seconds by receiver and sender, the order of an Ethernet header."""
    return {
        bytes.fromhex((target + source).replace(":", "")): (
            ms / 1e3,
            jitter_ms / 1e3,
            wake_ms / 1e3,
        )
        for source, target, ms, jitter_ms, wake_ms in json.loads(line)
    }


def read_frames(tap: int, line: DelayLine) -> None:
    """Move what the kernel has for us into the delay line, each with its own time of arrival."""
    with suppress(BlockingIOError):
        for _ in range(BURST_FRAMES):
            frame = os.read(tap, FRAME_BYTES)
            line.add(frame, time.monotonic())


def write_frames(tap: int, line: DelayLine) -> None:
    """Give back what is due; the kernel refuses frames while the device is still down."""
    for frame in line.due(time.monotonic()):
        with suppress(OSError):
            os.write(tap, frame)


def main(device: str) -> None:
    """Relay until stdin ends."""
    # Real-time priority keeps the error at tens of microseconds on a busy machine; containers may
    # lack the right, and then the relay is only as punctual as the machine is idle.
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    gc.disable()
    tap = open_tap(device)
    line = DelayLine()
    while True:
        # select takes microseconds; epoll would round up to milliseconds.
        wait_s = line.wait_s(time.monotonic())
        readable, _, _ = select.select([tap, sys.stdin], [], [], wait_s)
        if sys.stdin in readable:
            request = sys.stdin.buffer.readline()
            if not request:
                return
            line.delays_s = parse_delays(request)
            os.write(sys.stdout.fileno(), b"ok\n")
        if tap in readable:
            read_frames(tap, line)
        write_frames(tap, line)


if __name__ == "__main__":
    main(sys.argv[1])
