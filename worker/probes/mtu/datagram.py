"""
Ask a path by datagrams to a node's answering port how large a packet may be, each way by itself.

Of each size there is a request with a small reply, which shows the way there alone, and one with a
reply of its own size. Needs no privilege.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

from worker.probes.answer import packet
from worker.probes.answer.packet import Kind
from worker.probes.answer.who_answers import Question
from worker.probes.icmp.echo_socket import ANCILLARY_BYTES, ERROR_MESSAGES, SEND_ATTEMPTS, Sockaddr
from worker.probes.icmp.packet import parse_extended_error
from worker.probes.icmp.series import parse_address
from worker.probes.mtu.asking import IP_BYTES, interface_mtu, largest, send_whole
from worker.probes.mtu.path_mtu import PathMtu

UDP_BYTES = 8


def datagram_mtu(
    asked: Question,
    kind: Kind,
    near: str,
    most_bytes: int,
    should_stop: Callable[[], bool],
) -> PathMtu | None:
    """
    Find the largest packet that passes to an answering port, or there and back.

    None when stopped; packets of more than `most_bytes` are of no interest.

    Args:
        asked: The port.
        kind: `ONE_WAY` or `BOTH_WAYS`.
        near: Name of this node.

    Raises:
        OSError: It is no address of this host's families, or there is no way to it.
    """
    most_bytes = min(most_bytes, interface_mtu(asked.address))
    family, sockaddr = parse_address(asked.address, asked.port)
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as opened:
        send_whole(opened, family)
        way = _Datagrams(opened, sockaddr, asked.secret, kind, near)
        return largest(way, family, most_bytes, should_stop)


class _Datagrams:
    """Requests of one size at a time, each with a challenge of its own."""

    def __init__(
        self, opened: socket.socket, sockaddr: Sockaddr, secret: bytes, kind: Kind, near: str
    ) -> None:
        self.socket, self.sockaddr = opened, sockaddr
        self.secret, self.kind, self.near = secret, kind, near
        self.header_bytes = IP_BYTES[socket.AddressFamily(opened.family)] + UDP_BYTES
        self.size, self.sent = 0, list[bytes]()

    def begin(self, size_bytes: int) -> None:
        self.size, self.sent = size_bytes - self.header_bytes, []

    def send(self) -> None:
        request = packet.request(self.kind, self.near, self.secret, self.size)
        self.sent.append(request)
        for attempt in range(SEND_ATTEMPTS):
            try:
                self.socket.sendto(request, self.sockaddr)
            except OSError:  # perhaps of an earlier one, reported late
                if attempt == SEND_ATTEMPTS - 1:
                    raise
            else:
                return

    def heard(self) -> tuple[int | None, bool]:
        too_big = self._too_big()
        with suppress(BlockingIOError):
            while True:
                try:
                    data = self.socket.recv(packet.MOST_BYTES)
                except BlockingIOError:
                    raise
                except OSError:  # an ICMP error, reported before what came
                    continue
                for number, request in enumerate(self.sent):
                    if packet.read_reply(data, request, self.secret) is not None:
                        return number, too_big
        return None, too_big

    def _too_big(self) -> bool:
        too_big = False
        with suppress(BlockingIOError):
            while True:
                _, ancillary, _, _ = self.socket.recvmsg(1, ANCILLARY_BYTES, socket.MSG_ERRQUEUE)
                for level, kind, raw in ancillary:
                    error = parse_extended_error(raw) if (level, kind) in ERROR_MESSAGES else None
                    too_big |= error is not None and error.kind == "packet_too_big"
        return too_big
