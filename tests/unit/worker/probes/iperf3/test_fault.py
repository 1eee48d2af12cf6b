"""Whose fault it is that an iperf3 server failed: its own is told, another's is not."""

from __future__ import annotations

import time

import pytest

from worker.probes.iperf3.fault import fault_of
from worker.probes.iperf3.tool import Tool

FOLDER = "; its folder for temporary files (TMPDIR, else /tmp) must be one that it can write"


def ended(script: str) -> Tool:
    tool = Tool(["sh", "-c", script])
    assert tool.pump(time.monotonic() + 60)
    return tool


# As iperf3 3.12 prints it; the folder was on a read-only, or on a full file system.
@pytest.mark.parametrize(
    ("said", "code", "fault"),
    [
        (
            "iperf3: error - unable to create a new stream: Bad file descriptor",
            0,
            "unable to create a new stream: Bad file descriptor" + FOLDER,
        ),
        (
            "iperf3: error - failed to read /dev/urandom: Bad address",
            1,
            "failed to read /dev/urandom: Bad address" + FOLDER,
        ),
        ("iperf3: error - unable to set CPU affinity: No", 1, "unable to set CPU affinity: No"),
        ("iperf3: interrupt - the client has terminated", 0, ""),
        ("iperf3: error - control socket has closed unexpectedly", 1, ""),
        ("iperf3: error - unable to receive control message: Connection reset by peer", 1, ""),
        ("iperf3: error - idle timeout for receiving data", 1, ""),
        ("iperf3: error - total required bandwidth is larger than server limit", 1, ""),
        ("", 0, ""),
    ],
)
def test_own_fault_of_a_server_is_told_and_that_of_others_is_not(
    said: str, code: int, fault: str
) -> None:
    tool = ended(f"echo '{said}' >&2; exit {code}")
    assert fault_of(tool) == (f"exit code {code}: {fault}" if fault else "")
    tool.kill()


def test_server_that_was_killed_says_by_what() -> None:
    tool = ended("kill -9 $$")
    assert fault_of(tool) == "signal 9"
    tool.kill()
