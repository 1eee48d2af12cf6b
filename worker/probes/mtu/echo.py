"""
Ask a path by ICMP echo how large a packet may be: the request and its reply are of one size.

So it is not known which of the two vanished. Needs what `icmp.echo_socket` needs.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

from worker.probes.icmp.echo_socket import EchoSocket, Sockaddr
from worker.probes.icmp.packet import HEADER, NONCE_BYTES, EchoCodec
from worker.probes.icmp.series import parse_address
from worker.probes.mtu.asking import (
    BEYOND_ANY_BYTES,
    IP_BYTES,
    interface_mtu,
    largest,
    send_whole,
)
from worker.probes.mtu.path_mtu import PathMtu

LARGEST_MESSAGE_BYTES = 65_536


def echo_mtu(
    address: str,
    most_bytes: int = BEYOND_ANY_BYTES,
    should_stop: Callable[[], bool] = lambda: False,
) -> PathMtu | None:
    """
    Find the largest packet that passes to a literal address and back.

    None when stopped; packets of more than `most_bytes` are of no interest.

    Raises:
        IcmpNotPermitted: This process may open no ICMP socket.
        OSError: It is no address of this host's families, or there is no way to it.
    """
    most_bytes = min(most_bytes, interface_mtu(address))
    family, sockaddr = parse_address(address)
    way = _Echoes(family, sockaddr)
    try:
        return largest(way, family, most_bytes, should_stop)
    finally:
        way.opened.close()


class _Echoes:
    """Echoes of one size at a time; those of each size have a nonce of their own."""

    codec: EchoCodec
    sent: int

    def __init__(self, family: int, sockaddr: Sockaddr) -> None:
        self.family, self.sockaddr = family, sockaddr
        self.opened = EchoSocket.open(family, secrets.randbelow(0x10000))
        self.socket = self.opened.socket
        send_whole(self.socket, family)

    def begin(self, size_bytes: int) -> None:
        self.sent = 0
        self.codec = EchoCodec(
            self.family,
            identifier=self.opened.identifier,
            nonce=secrets.token_bytes(NONCE_BYTES),
            targets=1,
            size_bytes=size_bytes - IP_BYTES[socket.AddressFamily(self.family)] - HEADER.size,
        )

    def send(self) -> None:
        self.sent += 1
        self.opened.send(self.codec.request(self.sent - 1), self.sockaddr)

    def heard(self) -> tuple[int | None, bool]:
        self.opened.errors_pending = True
        received, quoted = self.opened.drain(LARGEST_MESSAGE_BYTES)
        replies = [self.codec.reply(one.message, one.start) for one in received]
        whole = [reply.serial for reply in replies if reply is not None and reply.whole]
        too_big = any(
            one.error.kind == "packet_too_big"
            and self.codec.quoted(one.quote, self.sent - 1) is not None
            for one in quoted
        )
        return (whole[0] if whole and whole[0] < self.sent else None), too_big
