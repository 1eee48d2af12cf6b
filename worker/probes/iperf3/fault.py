"""
What an iperf3 that has ended says of its own failure.

A server that fails closes its connections: its client only sees that, and blames the network.
"""

from __future__ import annotations

from worker.probes.iperf3.errors import first_line
from worker.probes.iperf3.tool import Tool

#: Words of an error that is the other end's, or of the way to it; the client knows as much.
OTHERS_FAULT = (
    "client", "control", "receive", "send", "stream socket", "read from stream", "write to stream",
    "idle timeout", "timed out", "reset by peer", "broken pipe", "server limit",
)  # fmt: skip
#: iperf3 keeps what it sends in a new file for each stream. Where it cannot, these
#: are its words, with whatever errno is left (3.12: "Bad file descriptor", "Bad address").
NO_FILE = ("unable to create a new stream", "/dev/urandom")
FOLDER = "its folder for temporary files (TMPDIR, else /tmp) must be one that it can write"
ERROR = "error - "


def fault_of(tool: Tool) -> str:
    """
    Return in one line with what, and why, an iperf3 that has ended failed by itself; else nothing.

    Its exit code alone says little: 3.12 exits with 0 where a server could not make a stream.
    """
    code = tool.exit_code()
    if code is not None and code < 0:
        return f"signal {-code}"
    lines = tool.stderr.decode("utf-8", "replace").splitlines()
    errors = [line.partition(ERROR)[2] for line in lines if ERROR in line]
    own = [line for line in errors if not any(word in line.lower() for word in OTHERS_FAULT)]
    return f"exit code {code}: {explained(first_line(own[0]))}" if own else ""


def explained(error: str) -> str:
    """
    Return an error of iperf3 with what to look at, where its own words mislead.

    >>> explained("unable to create a new stream: Bad file descriptor").partition("; ")[2]
    'its folder for temporary files (TMPDIR, else /tmp) must be one that it can write'
    """
    return f"{error}; {FOLDER}" if any(words in error for words in NO_FILE) else error
