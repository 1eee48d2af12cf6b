"""
Asks who answers at an address: a few datagrams to its answering port, and the name that comes back.

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

#: A request is sent so often, each this long after the one before: as long as a reply may take.
TRIES, TRY_S = 3, 0.5
#: Sent without a pause, as a switch port's buffer holds them; so that no more than 256 are sent, or
#: have to be answered, in a second.
AT_A_TIME = 32
PAUSE_S = 0.125


@dataclass(frozen=True, kw_only=True)
class Question:
    """
    A port to ask.

    Attributes:
        address: Literal address at which somebody answers, or nobody.
        port: The one that a node says it has opened.
        secret: What that node knows, and who asks.
    """

    address: str
    port: int
    secret: bytes


def who_answers(
    questions: Sequence[Question],
    near: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[int, str]:
    """Give the name that answered to each question, by its index; what had no answer is absent."""
    asked = [packet.request(Kind.WHO, near, one.secret) for one in questions]
    index_of = {packet.challenge_of(data): index for index, data in enumerate(asked)}
    names: dict[int, str] = {}
    with ExitStack() as stack:
        sockets = {
            family: stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            for family in {_family(one.address) for one in questions}
        }

        def listen(seconds: float) -> None:
            until = time.monotonic() + seconds
            while len(names) < len(questions) and time.monotonic() < until and not should_stop():
                for data in _received(sockets, until):
                    index = index_of.get(packet.challenge_of(data))
                    if index is None:
                        continue
                    said = packet.read_reply(data, asked[index], questions[index].secret)
                    if said is not None:
                        names[index] = said.name

        for _ in range(TRIES):
            left = [index for index in range(len(questions)) if index not in names]
            for start in range(0, len(left), AT_A_TIME):
                if start:
                    listen(PAUSE_S)
                _send(sockets, questions, asked, left[start : start + AT_A_TIME])
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
        one = questions[index]
        family = _family(one.address)
        with suppress(OSError):  # no route, or a firewall of our own: no answer, then
            flags = socket.AI_NUMERICHOST
            found = socket.getaddrinfo(one.address, one.port, family, socket.SOCK_DGRAM, 0, flags)
            sockets[family].sendto(asked[index], found[0][4])


def _received(sockets: dict[int, socket.socket], until: float) -> Iterator[bytes]:
    left_s, poller = max(0.0, until - time.monotonic()), select.poll()
    by_descriptor = {opened.fileno(): opened for opened in sockets.values()}
    for descriptor in by_descriptor:
        poller.register(descriptor, select.POLLIN)
    # Not select(2): beside a measurement of very many targets descriptors may be beyond its 1024.
    for descriptor, _ in poller.poll(1000 * min(left_s, 0.1)):
        with suppress(OSError):
            yield by_descriptor[descriptor].recv(packet.MOST_BYTES)
