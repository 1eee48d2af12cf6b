"""
ICMP echo on the wire: build a request, recognise its reply, read what an error message quotes.

Pure. Everything that is read here was written by strangers: what does not parse, or was not sent
by this very call, is None and never an exception.

An echo's number is its `serial`, counted over all targets: `echo * targets + target`. The payload
carries a random nonce and both halves of it, so that a 16-bit sequence that wraps, another ping of
the same identifier, or a forger who cannot see our packets does not confuse anything.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import NamedTuple

#: Type, code, checksum, identifier, sequence (RFC 792, RFC 4443 section 4.1).
HEADER = struct.Struct("!BBHHH")
#: Header, nonce, target, echo: the part of a reply that differs between echoes.
HEADED = struct.Struct("!BBHHH16sII")
NONCE_BYTES = 16
#: Nonce, target and echo; a smaller payload cannot say which echo it belongs to.
MIN_SIZE_BYTES = HEADED.size - HEADER.size
#: Filler of the payload, repeated; no run of zeros, so that a link which compresses shows less.
PATTERN = bytes(range(0x30, 0x70))
#: (request, reply) types by family.
ECHO_TYPES = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}

#: `struct sock_extended_err` of linux/errqueue.h: errno, origin, type, code, pad, info, data.
EXTENDED_ERROR = struct.Struct("=IBBBBII")
ORIGIN_ICMP, ORIGIN_ICMP6 = 2, 3

#: What an error means, by type and code; codes that are not here fall back to `FALLBACK`.
ICMP_KINDS = {
    (3, 0): "network_unreachable",
    (3, 1): "host_unreachable",
    (3, 2): "protocol_unreachable",
    (3, 3): "port_unreachable",
    (3, 4): "packet_too_big",
    (3, 6): "network_unreachable",
    (3, 7): "host_unreachable",
    (3, 9): "prohibited",
    (3, 10): "prohibited",
    (3, 11): "network_unreachable",
    (3, 12): "host_unreachable",
    (3, 13): "prohibited",
    (11, 0): "ttl_exceeded",
}
ICMP6_KINDS = {
    (1, 0): "network_unreachable",
    (1, 1): "prohibited",
    (1, 3): "host_unreachable",
    (1, 4): "port_unreachable",
    (1, 5): "prohibited",
    (1, 6): "prohibited",
    (3, 0): "ttl_exceeded",
}
FALLBACK = {
    (ORIGIN_ICMP, 3): "unreachable",
    (ORIGIN_ICMP, 11): "reassembly_timeout",
    (ORIGIN_ICMP, 12): "parameter_problem",
    (ORIGIN_ICMP6, 1): "unreachable",
    (ORIGIN_ICMP6, 2): "packet_too_big",
    (ORIGIN_ICMP6, 3): "reassembly_timeout",
    (ORIGIN_ICMP6, 4): "parameter_problem",
}


@dataclass(frozen=True)
class IcmpError:
    """An ICMP error message: what it says, and the address that said it."""

    kind: str
    said_by: str

    def __str__(self) -> str:
        """Return one line for a person."""
        return f"{self.kind.replace('_', ' ')}, said {self.said_by}"


class Reply(NamedTuple):
    """A reply: to which echo, and whether the payload came back `whole`, as it was sent."""

    serial: int
    whole: bool


class EchoCodec:
    """The echoes of one call on one socket: identifier, nonce, size and number of targets."""

    def __init__(
        self, family: int, *, identifier: int, nonce: bytes, targets: int, size_bytes: int
    ) -> None:
        """
        Fix what all echoes share.

        Args:
            family: `AF_INET` or `AF_INET6`.
            identifier: The 16 bits by which the kernel or a filter knows our replies.
            nonce: `NONCE_BYTES` that nobody can guess.
            targets: How many targets the call has.
            size_bytes: ICMP payload, at least `MIN_SIZE_BYTES`.
        """
        self.request_type, self.reply_type = ECHO_TYPES[socket.AddressFamily(family)]
        self.identifier, self.nonce, self.targets = identifier, nonce, targets
        filler_bytes = size_bytes - MIN_SIZE_BYTES
        self.filler = (PATTERN * (filler_bytes // len(PATTERN) + 1))[:filler_bytes]
        self.length = HEADER.size + size_bytes
        self._sum = (self.request_type << 8) + identifier + _words(nonce) + _words(self.filler)

    def request(self, serial: int) -> bytes:
        """Build the request of an echo, checksum included (RFC 1071)."""
        echo, target = divmod(serial, self.targets)
        sequence = serial & 0xFFFF
        total = self._sum + sequence + (target >> 16) + (target & 0xFFFF)
        total += (echo >> 16) + (echo & 0xFFFF)
        total = (total & 0xFFFF) + (total >> 16)
        checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        head = (self.request_type, 0, checksum, self.identifier, sequence)
        return HEADED.pack(*head, self.nonce, target, echo) + self.filler

    def reply(self, message: bytes, start: int) -> Reply | None:
        """Read a reply whose ICMP begins at `start`; None when it is not to one of our echoes."""
        if start < 0 or len(message) < start + HEADED.size:
            return None
        head = HEADED.unpack_from(message, start)
        kind, code, _, identifier, sequence, nonce, target, echo = head
        if nonce != self.nonce or kind != self.reply_type or code or identifier != self.identifier:
            return None
        serial = self._serial(target, echo, sequence)
        return (
            None if serial is None else Reply(serial, message[start + HEADED.size :] == self.filler)
        )

    def _serial(self, target: int, echo: int, sequence: int) -> int | None:
        serial = echo * self.targets + target
        return serial if target < self.targets and serial & 0xFFFF == sequence else None

    def quoted(self, quote: bytes, latest: int) -> int | None:
        """
        Find the echo that an error message quotes.

        A router may quote no more than the 8 bytes of our header (RFC 792): then it is the latest
        echo with that sequence. What is quoted of the nonce must be ours.

        Args:
            quote: What is quoted, from our ICMP header on.
            latest: Serial of the latest echo that was sent.
        """
        if len(quote) < HEADER.size:
            return None
        kind, code, _, identifier, sequence = HEADER.unpack_from(quote)
        if kind != self.request_type or code or identifier != self.identifier:
            return None
        if not self.nonce.startswith(quote[HEADER.size : HEADER.size + NONCE_BYTES]):
            return None
        if len(quote) >= HEADED.size:
            target, echo = struct.unpack_from("!II", quote, HEADER.size + NONCE_BYTES)
            serial = self._serial(target, echo, sequence)
        else:
            serial = latest - ((latest - int(sequence)) & 0xFFFF)
        return serial if serial is not None and 0 <= serial <= latest else None


def ipv4_payload_start(datagram: bytes) -> int:
    """
    Return where the payload of an IPv4 datagram begins, or -1 when it is not one.

    >>> ipv4_payload_start(bytes([0x46]) + bytes(40))
    24
    """
    if len(datagram) < 20 or datagram[0] >> 4 != 4 or datagram[0] & 0x0F < 5:
        return -1
    return (datagram[0] & 0x0F) * 4


def parse_extended_error(raw: bytes) -> IcmpError | None:
    """
    Read the control message in which the kernel hands over an ICMP error (ip(7), IP_RECVERR).

    It is a `struct sock_extended_err`, then the socket address of the sender. None when it is not
    of ICMP: an error of this host's own is said by `sendto` already.
    """
    if len(raw) < EXTENDED_ERROR.size:
        return None
    _, origin, kind, code, _, _, _ = EXTENDED_ERROR.unpack_from(raw)
    fallback = FALLBACK.get((origin, kind))
    if fallback is None:
        return None
    kinds = ICMP_KINDS if origin == ORIGIN_ICMP else ICMP6_KINDS
    return IcmpError(kinds.get((kind, code), fallback), _offender(raw[EXTENDED_ERROR.size :]))


def _offender(sockaddr: bytes) -> str:
    if len(sockaddr) >= 8 and sockaddr[:2] == struct.pack("=H", socket.AF_INET):
        return socket.inet_ntop(socket.AF_INET, sockaddr[4:8])
    if len(sockaddr) >= 24 and sockaddr[:2] == struct.pack("=H", socket.AF_INET6):
        return socket.inet_ntop(socket.AF_INET6, sockaddr[8:24])
    return "an unknown router"


def _words(data: bytes) -> int:
    """Add up 16-bit words, the last one filled with a zero byte (RFC 1071)."""
    even = data + bytes(len(data) % 2)
    return sum(struct.unpack(f"!{len(even) // 2}H", even))
