"""
Ask a path by ICMP echo how large a packet may be: the request and its reply are of one size.

So it is not known which of the two vanished. Needs what `icmp_socket` needs.
"""

from __future__ import annotations

import errno
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable

from worker.probes.icmp_packet import EXTENDED_ERROR, HEADER, NONCE_BYTES, EchoCodec
from worker.probes.icmp_series import parse_address
from worker.probes.icmp_socket import IP_RECVERR, IPV6_RECVERR, EchoSocket, Quoted, Sockaddr
from worker.probes.path_mtu import Fate, PathMtu, search

#: linux/in.h, linux/in6.h: do not fragment, and do not believe what the kernel has learned of a
#: path: the interface's MTU is the only limit.
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE, IPV6_DONTFRAG = 10, 23, 3, 62
#: Larger than any interface sends but the loopback.
BEYOND_ANY_BYTES = 65_000
#: The IP header without options.
IP_BYTES = {socket.AF_INET: 20, socket.AF_INET6: 40}
LARGEST_MESSAGE_BYTES = 65_536
#: How often a size is tried; what answers once has passed.
TRIES = 3
#: An answer through a full queue of a mobile link takes so long.
PATIENT_S = 1.5
#: Else it is waited for this long, and some of the slowest answers so far.
LEAST_WAIT_S, SLOWEST_ANSWERS = 0.2, 3.0
#: How often `should_stop` is asked.
STOP_CHECK_S = 0.2
#: Port of the discard protocol (RFC 863), which nobody listens on.
DISCARD = 9


class _StoppedError(Exception):
    """Somebody wants it to end."""


def echo_mtu(
    address: str,
    *,
    most_bytes: int = BEYOND_ANY_BYTES,
    should_stop: Callable[[], bool] = lambda: False,
) -> PathMtu | None:
    """
    Find the largest packet that passes to an address and back.

    Args:
        address: Literal address.
        most_bytes: Larger packets are of no interest.
        should_stop: Asked a few times a second.

    Returns:
        None when stopped.

    Raises:
        IcmpNotPermitted: This process may open no ICMP socket.
        OSError: It is no address of this host's families.
    """
    family, sockaddr = parse_address(address)
    most_bytes = min(most_bytes, interface_mtu(family, sockaddr))
    asker = _Asker(family, sockaddr, should_stop)
    try:
        return search(asker.ask, family=family, most_bytes=most_bytes)
    except _StoppedError:
        return None
    finally:
        asker.opened.close()


class _Asker:
    """One socket, and the slowest answer that it got."""

    def __init__(self, family: int, sockaddr: Sockaddr, should_stop: Callable[[], bool]) -> None:
        self.family, self.sockaddr, self.should_stop = family, sockaddr, should_stop
        self.opened = EchoSocket.open(family, secrets.randbelow(0x10000))
        believe_no_cache(self.opened.socket, family)
        self.poller = select.poll()
        self.poller.register(self.opened.socket, select.POLLIN)
        self.slowest_s = 0.0

    def ask(self, size_bytes: int, patient: bool) -> Fate:
        """Send up to three echoes of one size, until one is answered."""
        wait_s = LEAST_WAIT_S + SLOWEST_ANSWERS * self.slowest_s
        wait_s = PATIENT_S if patient else min(PATIENT_S, wait_s)
        codec = EchoCodec(
            self.family,
            identifier=self.opened.identifier,
            nonce=secrets.token_bytes(NONCE_BYTES),
            targets=1,
            size_bytes=size_bytes - IP_BYTES[socket.AddressFamily(self.family)] - HEADER.size,
        )
        sent: list[float] = []
        while len(sent) < TRIES:
            sent.append(time.monotonic())
            try:
                self.opened.send(codec.request(len(sent) - 1), self.sockaddr)
            except OSError as exc:
                if exc.errno == errno.EMSGSIZE:
                    return Fate.NO_ROOM
            left_s = wait_s if len(sent) == TRIES else wait_s / TRIES
            fate = self._answer(codec, sent, sent[-1] + left_s)
            if fate is not Fate.SILENT:
                return fate
        return Fate.SILENT

    def _answer(self, codec: EchoCodec, sent: list[float], until: float) -> Fate:
        """Wait for an answer to any of the echoes of one size."""
        while (left_s := until - time.monotonic()) > 0:
            if self.should_stop():
                raise _StoppedError
            for _, event in self.poller.poll(1 + 1000 * min(left_s, STOP_CHECK_S)):
                self.opened.errors_pending |= bool(event & select.POLLERR)
            received, quoted = self.opened.drain(LARGEST_MESSAGE_BYTES)
            for one in received:
                reply = codec.reply(one.message, one.start)
                if reply is not None and reply.whole and reply.serial < len(sent):
                    took_s = time.monotonic() - sent[reply.serial]
                    self.slowest_s = max(self.slowest_s, took_s)
                    return Fate.PASSED
            if any(_says_too_big(one, codec, len(sent) - 1) for one in quoted):
                return Fate.TOO_BIG
        return Fate.SILENT


def _says_too_big(quoted: Quoted, codec: EchoCodec, latest: int) -> bool:
    said = quoted.error.kind == "packet_too_big"
    return said and codec.quoted(quoted.quote, latest) is not None


def believe_no_cache(opened: socket.socket, family: int) -> None:
    """Have a socket send packets whole, whatever the kernel has learned of their path."""
    if family == socket.AF_INET:
        opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
    else:
        opened.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
        opened.setsockopt(socket.IPPROTO_IPV6, IPV6_DONTFRAG, 1)


def interface_mtu(family: int, sockaddr: Sockaddr) -> int:
    """
    Give the MTU of the interface by which an address is reached, as the kernel tells it.

    The kernel refuses a packet that is too large for it, and names the limit in the error queue
    (ip(7), IP_RECVERR).

    Raises:
        OSError: There is no way to that address.
    """
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        believe_no_cache(asked, family)
        level, option = (
            (socket.IPPROTO_IP, IP_RECVERR)
            if family == socket.AF_INET
            else (socket.IPPROTO_IPV6, IPV6_RECVERR)
        )
        asked.setsockopt(level, option, 1)
        try:
            asked.sendto(bytes(BEYOND_ANY_BYTES), (sockaddr[0], DISCARD, *sockaddr[2:]))
        except OSError as exc:
            if exc.errno != errno.EMSGSIZE:
                raise
        else:
            return BEYOND_ANY_BYTES
        _, ancillary, _, _ = asked.recvmsg(1, LARGEST_MESSAGE_BYTES, socket.MSG_ERRQUEUE)
    limits = [struct.unpack_from("=I", raw, EXTENDED_ERROR.size - 8)[0] for _, _, raw in ancillary]
    return int(limits[0])
