"""
One ICMP socket for every target of a family: opened, filtered, stamped by the kernel, drained.

Needs CAP_NET_RAW for a raw socket; without it, a group within `net.ipv4.ping_group_range` for a
datagram one (icmp(7), both families). That range is per network namespace and empty in a new one.
Linux 4.12 or newer, on x86 or arm: the option numbers that Python does not name are those of
asm-generic/socket.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
import time
from typing import Any, Literal, NamedTuple

from worker.model.errors import ToolError
from worker.probes.icmp.packet import (
    ECHO_TYPES,
    IcmpError,
    ipv4_payload_start,
    parse_extended_error,
)

#: asm-generic/socket.h
SO_ATTACH_FILTER, SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_TIMESTAMPNS, SO_MEMINFO = 26, 32, 33, 35, 55
#: linux/socket.h: do everything but send.
MSG_PROBE = 0x10
#: linux/in.h, linux/in6.h: queue ICMP errors for us instead of forgetting them.
IP_RECVERR, IPV6_RECVERR = 11, 25
#: linux/in.h, linux/in6.h: hand over the TTL, or hop limit, with which a message arrived. It comes
#: back as a message of another type in IPv6.
IP_RECVTTL, IPV6_RECVHOPLIMIT = 12, 51
#: linux/icmp.h, linux/icmpv6.h; the levels are the protocols of a raw socket.
SOL_RAW, ICMP_FILTER = 255, 1
SOL_ICMPV6, ICMPV6_FILTER = 58, 1
#: Index of the drop counter in what SO_MEMINFO gives (linux/sock_diag.h, SK_MEMINFO_DROPS).
MEMINFO_DROPS = 8
#: A reply takes some 800 bytes of it: about 10,000 replies, a second of the fastest pace.
RECEIVE_BUFFER_BYTES = 8 * 1024 * 1024
#: Echoes to a neighbour that does not answer ARP stay in it for three seconds.
SEND_BUFFER_BYTES = 8 * 1024 * 1024
#: Largest reply there is room for: 1,400 bytes of payload, headers and IPv4 options.
MESSAGE_BYTES = 2048
#: Room for a timestamp, a TTL, and one `sock_extended_err` with an IPv6 address after it.
ANCILLARY_BYTES = 256
#: (level, type) of the control message that carries an ICMP error.
ERROR_MESSAGES = {(socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)}
#: Those that carry a TTL: an int, as ip(7) and ipv6(7) say.
TTL_MESSAGES = {(socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)}
#: What the kernel is to hand over: ICMP errors, on a raw socket too, as without them a packet that
#: the queueing discipline drops is silently lost instead of ENOBUFS (net/ipv4/raw.c), and TTLs.
WANTED_OF_KERNEL = {
    socket.AF_INET: ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IP, IP_RECVTTL)),
    socket.AF_INET6: (
        (socket.IPPROTO_IPV6, IPV6_RECVERR),
        (socket.IPPROTO_IPV6, IPV6_RECVHOPLIMIT),
    ),
}
#: At most this many at once: a flood must not keep us from sending.
DRAIN_MESSAGES = 10_000
#: A pending error of an earlier echo makes a later `sendto` fail once; this often it is retried.
SEND_ATTEMPTS = 3
TIMESPEC, INT = struct.Struct("@ll"), struct.Struct("@i")

#: The kernel is short of memory or room for the moment, which says nothing about the target.
BUSY_ERRORS = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})

SocketKind = Literal["raw", "datagram"]
Sockaddr = tuple[Any, ...]
#: What lets everybody ping with a datagram socket.
PERMIT = 'sudo sysctl -w net.ipv4.ping_group_range="0 2147483647"'


class IcmpNotPermitted(ToolError):  # noqa: N818 - reads as the state it is
    """This process may open neither a raw nor a datagram ICMP socket; says what to do."""

    def __init__(self) -> None:
        """Name the exact command, as it is the whole next step."""
        super().__init__(f"ping needs CAP_NET_RAW, or: {PERMIT}")


class Received(NamedTuple):
    """
    An ICMP message.

    `start` is where ICMP begins in it, `stamp_ns` the kernel's, wall clock, and `ttl` the TTL or
    hop limit with which it arrived; None where the kernel did not say.
    """

    message: bytes
    start: int
    stamp_ns: int | None
    sender: Sockaddr
    ttl: int | None


class Quoted(NamedTuple):
    """An ICMP error: the echo that it quotes, from our ICMP header on, and where that went."""

    quote: bytes
    destination: Sockaddr
    error: IcmpError


def icmp_capability() -> SocketKind | Literal["none"]:
    """Find which kind of ICMP socket this process may open, by opening one."""
    try:
        opened, kind = _open(socket.AF_INET)
    except IcmpNotPermitted:
        return "none"
    opened.close()
    return kind


def limit_hops(opened: socket.socket, hops: int) -> None:
    """Let what a socket sends live for so many hops; with 1 no router passes it on."""
    if opened.family == socket.AF_INET:
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
    else:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)


class EchoSocket:
    """An open socket; `identifier` marks its echoes."""

    def __init__(
        self, opened: socket.socket, family: int, kind: SocketKind, identifier: int
    ) -> None:
        """Take over a socket that `open` has set up."""
        self.socket, self.family, self.kind, self.identifier = opened, family, kind, identifier
        self._has_ip_header = kind == "raw" and family == socket.AF_INET
        #: Whether ICMP errors are queued; `poll` says so too.
        self.errors_pending = False

    @classmethod
    def open(cls, family: int, identifier: int) -> EchoSocket:
        """
        Open a raw socket, or a datagram one where that is not permitted.

        Args:
            family: `AF_INET` or `AF_INET6`.
            identifier: For a raw socket; the kernel chooses that of a datagram socket.

        Raises:
            IcmpNotPermitted: This process may open neither.
            OSError: This host does not have the family.
        """
        opened, kind = _open(family)
        try:
            if kind == "datagram":
                opened.bind(("", 0))
                identifier = opened.getsockname()[1]
            else:
                _filter_types(opened, family)
                _filter_identifier(opened, family, identifier)
            _set_buffers(opened)
            opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            for level, option in WANTED_OF_KERNEL[socket.AddressFamily(family)]:
                opened.setsockopt(level, option, 1)
        except BaseException:
            opened.close()
            raise
        return cls(opened, family, kind, identifier)

    def warm(self, packet: bytes, address: Sockaddr) -> None:
        """Walk an echo's way into the kernel without sending it, to bring it into the caches."""
        if self.kind == "datagram":  # over IPv6 the kernel sends it all the same (net/ipv6/ping.c)
            return
        try:
            self.socket.sendto(packet, MSG_PROBE, address)
        except OSError:  # `send` meets it again if it was this echo's own
            self.errors_pending = True

    def send(self, packet: bytes, address: Sockaddr) -> tuple[int, int]:
        """
        Send an echo.

        Returns:
            Monotonic nanoseconds just before and just after; it left in between.

        Raises:
            BlockingIOError: The kernel is short of room; try again shortly.
            OSError: The kernel refuses this echo.
        """
        refusal: OSError | None = None
        for _ in range(SEND_ATTEMPTS):
            now_ns = time.monotonic_ns()
            try:
                self.socket.sendto(packet, address)
            except OSError as exc:
                if exc.errno in BUSY_ERRORS:
                    raise BlockingIOError(exc.errno, exc.strerror) from exc
                # It may be the error of an earlier echo, to anyone, which the kernel reports on
                # the next call and then forgets (net/core/sock.c, sock_error).
                refusal, self.errors_pending = exc, True
            else:
                return now_ns, time.monotonic_ns()
        raise refusal or OSError("no attempt was made")

    def drain(self, message_bytes: int = MESSAGE_BYTES) -> tuple[list[Received], list[Quoted]]:
        """Read everything that has arrived; of each message no more than `message_bytes`."""
        received: list[Received] = []
        quoted: list[Quoted] = []
        for _ in range(DRAIN_MESSAGES):
            if self.errors_pending:
                self._drain_errors(quoted)
            try:
                message, ancillary, _, sender = self.socket.recvmsg(message_bytes, ANCILLARY_BYTES)
            except BlockingIOError:
                break
            except OSError:
                self.errors_pending = True  # the kernel names a pending ICMP error before data
                continue
            start = ipv4_payload_start(message) if self._has_ip_header else 0
            stamp_ns, ttl = _stamp_and_ttl(ancillary)
            received.append(Received(message, start, stamp_ns, sender, ttl))
        return received, quoted

    def _drain_errors(self, quoted: list[Quoted]) -> None:
        self.errors_pending = False
        with contextlib.suppress(BlockingIOError):
            for _ in range(DRAIN_MESSAGES):
                quote, ancillary, _, destination = self.socket.recvmsg(
                    MESSAGE_BYTES, ANCILLARY_BYTES, socket.MSG_ERRQUEUE
                )
                for level, kind, raw in ancillary:
                    error = parse_extended_error(raw) if (level, kind) in ERROR_MESSAGES else None
                    if error is not None and destination:
                        quoted.append(Quoted(quote, destination, error))

    def dropped(self) -> int:
        """Count messages that the kernel threw away because we did not read in time."""
        numbers = self.socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * (MEMINFO_DROPS + 1))
        return int(struct.unpack_from("=I", numbers, 4 * MEMINFO_DROPS)[0])

    def close(self) -> None:
        """Close; a second time does nothing."""
        self.socket.close()


def _open(family: int) -> tuple[socket.socket, SocketKind]:
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    kinds: dict[int, SocketKind] = {socket.SOCK_RAW: "raw", socket.SOCK_DGRAM: "datagram"}
    for number, kind in kinds.items():
        with contextlib.suppress(PermissionError):
            return socket.socket(family, number | socket.SOCK_NONBLOCK, protocol), kind
    raise IcmpNotPermitted


def _filter_types(opened: socket.socket, family: int) -> None:
    """Let only echo replies through: a raw socket gets a copy of all ICMP of the host."""
    _, reply = ECHO_TYPES[socket.AddressFamily(family)]
    if family == socket.AF_INET:
        opened.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF ^ 1 << reply))
        return
    blocked = [0xFFFFFFFF] * 8
    blocked[reply // 32] ^= 1 << reply % 32
    opened.setsockopt(SOL_ICMPV6, ICMPV6_FILTER, struct.pack("=8I", *blocked))


def _filter_identifier(opened: socket.socket, family: int, identifier: int) -> None:
    """Let only our identifier through, so that several workers on a host do not wake each other."""
    # Classic BPF (linux/bpf_common.h). An IPv4 raw socket sees the IP header, IPv6 does not.
    header_length = (0xB1, 0, 0, 0)  # X = 4 * (byte 0 & 15)
    compare = (0x15, 0, 1, identifier)
    keep, drop = (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0)
    if family == socket.AF_INET:
        program = [header_length, (0x48, 0, 0, 4), compare, keep, drop]
    else:
        program = [(0x28, 0, 0, 4), compare, keep, drop]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    memory = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(program), ctypes.addressof(memory))
    opened.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, header)


def _set_buffers(opened: socket.socket) -> None:
    for force, ask, size in (
        (SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES),
        (SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER_BYTES),
    ):
        try:
            opened.setsockopt(socket.SOL_SOCKET, force, size)
        except PermissionError:  # CAP_NET_ADMIN is not needed: net.core.[rw]mem_max is the limit
            opened.setsockopt(socket.SOL_SOCKET, ask, size)


def _stamp_and_ttl(ancillary: list[tuple[int, int, bytes]]) -> tuple[int | None, int | None]:
    stamp_ns = ttl = None
    for level, kind, raw in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(raw) >= TIMESPEC.size:
            seconds, nanoseconds = TIMESPEC.unpack_from(raw)
            stamp_ns = int(seconds) * 1_000_000_000 + int(nanoseconds)
        elif (level, kind) in TTL_MESSAGES and len(raw) >= INT.size:
            (ttl,) = INT.unpack_from(raw)
    return stamp_ns, ttl
