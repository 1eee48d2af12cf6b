"""
Ask who answers at an address: a few datagrams to its answering port, and the name that comes back.

Needs no privilege. UDP that is filtered, lost or refused is no answer, and no failure.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from worker.probes.answer import packet
from worker.probes.answer.packet import Kind
from worker.probes.icmp.series import parse_address

#: A request is sent so often, each this long after the one before: as long as a reply may take.
TRIES, TRY_S = 3, 0.5
#: Sent without a pause, as a switch port's buffer holds them; so that no more than 256 are sent, or
#: have to be answered, in a second.
AT_A_TIME = 32
PAUSE_S = 0.125


@dataclass(frozen=True, kw_only=True)
class Question:
    """A port that a node says it has opened at a literal address; asker and node know `secret`."""

    address: str
    port: int
    secret: bytes


def who_answers(
    questions: Sequence[Question],
    near: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[int, str]:
    """Return the name that answered each question, by its index; what had no answer is absent."""
    asked = [packet.request(Kind.WHO, near, one.secret) for one in questions]
    index_of = {packet.challenge_of(data): index for index, data in enumerate(asked)}
    names: dict[int, str] = {}
    with ExitStack() as stack:
        sockets: dict[int, socket.socket] = {}
        for family in {_family(one.address) for one in questions}:
            with suppress(OSError):  # one that this machine does not have, as it may IPv6
                sockets[family] = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))

        def listen(seconds: float) -> None:
            until = time.monotonic() + seconds
            while len(names) < len(questions) and time.monotonic() < until and not should_stop():
                for data in _received(sockets, until):
                    index = index_of.get(packet.challenge_of(data))
                    if index is None:
                        continue
                    reply = packet.read_reply(data, asked[index], questions[index].secret)
                    if reply is not None:
                        names[index] = reply.name

        for _ in range(TRIES):
            silent = [index for index in range(len(questions)) if index not in names]
            for start in range(0, len(silent), AT_A_TIME):
                if start:
                    listen(PAUSE_S)
                _send(sockets, questions, asked, silent[start : start + AT_A_TIME])
            listen(TRY_S)
            if len(names) == len(questions) or should_stop():
                break
    return names


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _send(
    sockets: dict[int, socket.socket],
    questions: Sequence[Question],
    asked: Sequence[bytes],
    indices: Sequence[int],
) -> None:
    for index in indices:
        with suppress(OSError, KeyError):  # no way, or a firewall of our own: no answer, then
            family, sockaddr = parse_address(questions[index].address, questions[index].port)
            sockets[family].sendto(asked[index], sockaddr)


def _received(sockets: dict[int, socket.socket], until: float) -> Iterator[bytes]:
    left_s, poller = max(0.0, until - time.monotonic()), select.poll()
    by_descriptor = {opened.fileno(): opened for opened in sockets.values()}
    for descriptor in by_descriptor:
        poller.register(descriptor, select.POLLIN)
    # Not select(2): beside a measurement of very many targets descriptors may be beyond its 1024.
    for descriptor, _ in poller.poll(1000 * min(left_s, 0.1)):
        with suppress(OSError):
            yield by_descriptor[descriptor].recv(packet.MOST_BYTES)
