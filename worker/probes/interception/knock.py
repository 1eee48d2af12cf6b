"""
Single TCP handshakes, of many targets at once: who answers, and how.

They end with an RST as soon as they are answered, or after `WAIT_S`. Needs no privilege.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from worker.probes.icmp.echo_socket import limit_hops
from worker.probes.icmp.series import parse_address
from worker.probes.interception.own_sockets import far_end_here

#: Before the kernel sends a first packet again (RFC 6298).
WAIT_S = 1.0
#: Between two handshakes: each may cost a router an ICMP message.
GAP_S = 0.001
#: Sockets that are open at a time: a process may often have 1024, and the measurement needs some.
MOST_OPEN = 256


@dataclass(frozen=True)
class Knock:
    """A handshake to try with a literal address; `hops` is how far its packets live, if limited."""

    address: str
    port: int
    hops: int | None = None


@dataclass(frozen=True)
class Answer:
    """An answer: accepted or refused; `here` is the port of this machine's socket that gave it."""

    accepted: bool
    here: int | None


def knock(knocks: Sequence[Knock]) -> dict[Knock, Answer]:
    """Try handshakes, paced, `MOST_OPEN` at a time; return those that were answered in time."""
    answers: dict[Knock, Answer] = {}
    for start in range(0, len(knocks), MOST_OPEN):
        answers |= _at_once(knocks[start : start + MOST_OPEN])
    return answers


def _at_once(knocks: Sequence[Knock]) -> dict[Knock, Answer]:
    opened: dict[int, tuple[socket.socket, Knock]] = {}
    answers: dict[Knock, Answer] = {}
    poller, waiting = select.poll(), 0
    try:
        for each in knocks:
            begun, state = _begin(each)
            opened[begun.fileno()] = (begun, each)
            if state == errno.EINPROGRESS:
                poller.register(begun, select.POLLOUT)
                waiting += 1
            else:
                _note(answers, each, begun, state)
            time.sleep(GAP_S)
        until = time.monotonic() + WAIT_S
        while waiting and (left_s := until - time.monotonic()) > 0:
            for descriptor, _ in poller.poll(left_s * 1000):
                poller.unregister(descriptor)
                waiting -= 1
                ready, each = opened[descriptor]
                _note(answers, each, ready, ready.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    finally:
        for ready, _ in opened.values():
            ready.close()
    return answers


def _begin(one: Knock) -> tuple[socket.socket, int]:
    """Begin one; return connect(2)'s answer, too."""
    family, sockaddr = parse_address(one.address, one.port)
    opened = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if one.hops is not None:
        limit_hops(opened, one.hops)
    return opened, opened.connect_ex(sockaddr)


def _note(answers: dict[Knock, Answer], one: Knock, opened: socket.socket, failed: int) -> None:
    """Note what answered, if anything did; the connection is still open then."""
    if failed in (0, errno.ECONNREFUSED):
        own, port = opened.getsockname()[:2]
        here = far_end_here(own, port, one.address) if failed == 0 else None
        answers[one] = Answer(failed == 0, here)
